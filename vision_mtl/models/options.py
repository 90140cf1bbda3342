"""The options of a backbone. Imports neither timm nor PyTorch, so that mistakes are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """The timm architecture and its initial weights."""

    name: str = "resnet18"
    """Name of any timm architecture, with or without a weight tag: `timm.list_models()`; or local-dir:FOLDER, a folder
    that export (RUN/backbone) or timm's save_for_hf wrote; or hf-hub:OWNER/NAME, a timm model on the Hugging Face
    hub."""
    pretrained: bool = False
    """true: start from timm's published weights, which are downloaded, or from those of local-dir or hf-hub; false:
    from random weights."""
    in_chans: int = 3
    """Channels of an image, any number: 3 for colour, 1 for grey, or the bands of the files."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm.create_model, for example output_stride or patch_size."""

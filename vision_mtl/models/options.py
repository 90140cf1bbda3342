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
    pretrained: bool | str = False
    """false: random weights; true: published ones, from an installed package where there are any
    (tf_efficientnet_lite0), from the folder of local-dir, or downloaded by timm; FILE: a state dict as .safetensors or
    .pth."""
    in_chans: int = 3
    """Channels of an image, any number: 3 for colour, 1 for grey, or the bands of the files."""
    input_size: int = 0
    """Side in pixels to which the network enlarges images before its first layer; 0: their own size."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm.create_model, for example output_stride or patch_size."""

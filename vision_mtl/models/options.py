"""The options of a backbone. Imports neither timm nor PyTorch, so that mistakes are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """The timm architecture and its initial weights."""

    name: str = "resnet10t"
    """Name of any timm architecture, with or without a weight tag: `timm.list_models()`; or local-dir:FOLDER, a folder
    that export (RUN/backbone) or timm's save_for_hf wrote; or hf-hub:OWNER/NAME, a timm model on the Hugging Face
    hub."""
    pretrained: bool | str = False
    """Initial weights of a run without --init_from. false: random; true: published ones, from an installed package
    (tf_efficientnet_lite0, _lite1, _lite2), from the folder of local-dir, or downloaded by timm; PATH: a state dict of
    this architecture (.safetensors, .pth, ...), or a folder that export or timm's save_for_hf wrote."""
    in_chans: int = 3
    """Channels of an image, any number: 3 for colour, 1 for grey, or the bands of the files."""
    input_size: int = 0
    """Pixels of the shorter side to which images are enlarged before the first layer, so that pretrained weights see
    objects at the size that they were trained on; 0: the images' own size."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm.create_model, for example output_stride or patch_size."""

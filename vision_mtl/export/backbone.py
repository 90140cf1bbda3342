"""The backbone as a folder that timm alone can open: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
# B images, C channels, H W pixels

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from timm.models._hub import save_config_for_hf
from torch import Tensor

from vision_mtl.core.files import atomic_write_bytes, atomic_write_json
from vision_mtl.data.resize import Fit
from vision_mtl.models.backbone import Backbone

CROP_MODES = {"stretch": "squash", "crop": "center", "pad": "border"}  # data.fit -> timm's name for it
# of published weights, which these are not
PUBLISHED = ("tag", "license", "origin_url", "paper_name", "paper_ids", "notes", "description")


def write_backbone(backbone: Backbone, folder: Path, fit: Fit) -> list[Path]:
    """Write `config.json` and `model.safetensors`; returns their paths.

    The config holds what builds the model again (image size, channels, the architecture's own keywords) and what its
    inputs are normalised with.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.model.state_dict().items()}
    config, weights = folder / "config.json", folder / "model.safetensors"
    atomic_write_bytes(weights, save(tensors, metadata={"format": "pt"}))
    atomic_write_json(config, _config(backbone, fit))
    return [config, weights]


def _config(backbone: Backbone, fit: Fit) -> dict[str, object]:
    """timm's own description of the model, with our preprocessing, less what it says of the published weights."""
    inputs = {
        "input_size": (backbone.in_chans, *backbone.image_size),
        "mean": tuple(backbone.mean.flatten().tolist()),
        "std": tuple(backbone.std.flatten().tolist()),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[fit],
    }
    with tempfile.TemporaryDirectory() as folder:  # timm writes it to a file only
        save_config_for_hf(backbone.model, str(Path(folder) / "config.json"), data_config=inputs)
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    for key in PUBLISHED:
        config["pretrained_cfg"].pop(key, None)
    return config


def backbone_difference(backbone: Backbone, folder: Path, images: Tensor) -> float:
    """Largest difference of maps and pooled features between `backbone` and what timm makes of the folder.

    `images` (B, C, H, W) in [0, 1]; relative to the largest feature where that is above 1.
    """
    loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(loaded.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        theirs = [*_maps(loaded, backbone, (images - mean) / std), loaded((images - mean) / std)]
        ours = [*backbone(images), backbone.model(backbone.normalise(images))]
    scales = [max(1.0, float(own.abs().max())) for own in ours]
    return max(float((a - b).abs().max()) / scale for a, b, scale in zip(ours, theirs, scales, strict=True))


def _maps(model: Any, backbone: Backbone, normalised: Tensor) -> list[Tensor]:
    return model.forward_intermediates(
        normalised, indices=backbone.indices, output_fmt="NCHW", intermediates_only=True, norm=backbone.final_norm
    )

"""Write the backbone as a folder that timm opens: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
# B images, C channels, H W pixels

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import save
from timm.models._hub import save_config_for_hf
from torch import Tensor

from vision_mtl.core.files import atomic_write_bytes, atomic_write_json
from vision_mtl.data.depth import stacked
from vision_mtl.data.pool import image_tensor
from vision_mtl.data.resize import Fit
from vision_mtl.inference.image_files import Frame
from vision_mtl.models.backbone import Backbone

CROP_MODES = {"stretch": "squash", "crop": "center", "pad": "border"}  # data.fit -> timm's name
COMPARED = 40  # images whose features are compared with those by timm's own transform
# entries of timm's config that describe published weights, not these
PUBLISHED = ("tag", "license", "origin_url", "paper_name", "paper_ids", "notes", "description")


@dataclass(frozen=True)
class TransformDifference:
    """Differences of features by timm's own transform, as shares of their length, over `images` images."""

    images: int
    median: float
    largest: float


def write_backbone(backbone: Backbone, folder: Path, fit: Fit, interpolation: str = "bilinear") -> list[Path]:
    """Write `config.json` and `model.safetensors` and return their paths.

    The config holds the arguments of the model (image size, channels, keywords of the architecture), the mean and
    standard deviation of its inputs, and the preprocessing as near as timm can state it. timm's model does not enlarge
    images: its `input_size` is the size after `backbone.input_size`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.model.state_dict().items()}
    config, weights = folder / "config.json", folder / "model.safetensors"
    atomic_write_bytes(weights, save(tensors, metadata={"format": "pt"}))
    atomic_write_json(config, _config(backbone, fit, interpolation))
    return [config, weights]


def _config(backbone: Backbone, fit: Fit, interpolation: str) -> dict[str, object]:
    """Return timm's description of the model with our preprocessing, without entries about published weights."""
    inputs = {
        "input_size": (backbone.in_chans, *backbone.input_size),
        "mean": tuple(backbone.mean.flatten().tolist()),
        "std": tuple(backbone.std.flatten().tolist()),
        "interpolation": interpolation,
        "crop_pct": 1.0,
        "crop_mode": CROP_MODES[fit],
    }
    with tempfile.TemporaryDirectory() as folder:  # timm only writes it to a file
        save_config_for_hf(backbone.model, str(Path(folder) / "config.json"), data_config=inputs)
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    for key in PUBLISHED:
        config["pretrained_cfg"].pop(key, None)
    return config


def nearest_filter(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> str:
    """Return timm's filter nearest to ours for images of these (height, width): an area average where most shrink.

    On photographs Hamming's filter was within half a grey level of it, bilinear within one (Pillow's average over whole
    pixels within 0.4 to 1.3, by the ratio); enlarged images are equal to 0.05 to 0.3 by the bilinear filter only.
    """
    shrinking = sum(height > image_size[0] and width > image_size[1] for height, width in sizes)
    return "hamming" if 2 * shrinking > len(sizes) else "bilinear"


def transform_difference(
    backbone: Backbone, folder: Path, frame: Frame, samples: Sequence[tuple[str, bytes]]
) -> TransformDifference | None:
    """Return how far features by timm's own transform of image files are from those of `--stage predict`.

    `samples` are (name, bytes). None without an image that both read, and for images that are neither grey nor RGB.
    """
    if backbone.in_chans not in (1, 3):
        return None
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    mode = "L" if backbone.in_chans == 1 else "RGB"
    own, theirs = [], []
    for name, data in samples[:: -(-len(samples) // COMPARED)] if samples else ():
        with suppress(Exception):  # a damaged file, which raises many types
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode)
            pixels = frame.decode(data, name).pixels
            theirs.append(transform(image))
            own.append(pixels)
    if not own:
        return None
    with torch.no_grad():
        expected, found = model(backbone.prepare(image_tensor(stacked(own)))), model(torch.stack(theirs))
    shares = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp(min=1e-12)
    return TransformDifference(len(shares), float(shares.median()), float(shares.max()))


def backbone_difference(backbone: Backbone, folder: Path, images: Tensor) -> float:
    """Return the largest difference of maps and pooled features between `backbone` and timm's model of the folder.

    `images` is (B, C, H, W) in [0, 1]. Differences are relative to the largest feature if that is above 1.
    """
    loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(loaded.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        inputs = (backbone.enlarge(images) - mean) / std
        theirs = [*_maps(loaded, backbone, inputs), loaded(inputs)]
        ours = [*backbone(images), backbone.model(backbone.prepare(images))]
    scales = [max(1.0, float(own.abs().max())) for own in ours]
    return max(float((a - b).abs().max()) / scale for a, b, scale in zip(ours, theirs, scales, strict=True))


def _maps(model: Any, backbone: Backbone, normalised: Tensor) -> list[Tensor]:
    return model.forward_intermediates(
        normalised, indices=backbone.indices, output_fmt="NCHW", intermediates_only=True, norm=backbone.final_norm
    )

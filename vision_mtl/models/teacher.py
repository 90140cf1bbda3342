"""A frozen network whose features are targets of another: published weights, a run's backbone, or a module."""
# B images, C channels, H W pixels, D feature width, h w positions

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone, is_convolutional
from vision_mtl.models.backbone_names import LOCAL, timm_name
from vision_mtl.models.weights import PACKAGED

Kind = Literal["pooled", "map"]


@dataclass(frozen=True)
class TeacherOrigin:
    """Where a teacher comes from: its name, where its weights are, and what these were trained on."""

    name: str
    weights: str
    trained_on: str


class Teacher(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> features (B, D), or (B, D, h, w) of kind `map`, without gradients.

    Images are resized to `size` (H, W), and grey ones become RGB, if the network takes RGB.
    """

    def __init__(self, network: nn.Module, kind: Kind, origin: TeacherOrigin, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.kind, self.origin, self.size = network.eval().requires_grad_(False), kind, origin, size
        # on a CPU about twice as fast for EfficientNet-Lite at 128 pixels
        fast = isinstance(network, Backbone) and is_convolutional(network)
        self.layout = torch.channels_last if fast else torch.contiguous_format
        if fast:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's hints lack it

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False, antialias=True)
        if not isinstance(self.network, Backbone):
            return self._checked(self.network(images))
        if images.shape[1] == 1 and self.network.in_chans == 3:
            images = images.expand(-1, 3, -1, -1)
        images = images.contiguous(memory_format=self.layout)
        if self.kind == "map":
            return self._checked(self.network(images, last_only=True)[-1])
        return self._checked(pooled_features(self.network, images))

    def _checked(self, features: object) -> Tensor:
        """Return the features; raise `UserError` for another shape than the kind's, and for NaN or infinity."""
        wanted = 2 if self.kind == "pooled" else 4
        if not isinstance(features, Tensor) or features.ndim != wanted:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            form = "(B, D)" if wanted == 2 else "(B, D, h, w)"
            raise UserError(f"teacher {self.origin.name}: it must give features {form}; found {found}.")
        if not bool(features.isfinite().all()):
            raise UserError(f"teacher {self.origin.name}: its features of some images are not finite.")
        return features.float()

    def sha256(self) -> str:
        """Return the SHA-256 of all weights, with their names."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            if not isinstance(value, Tensor):  # a module's own extra state
                continue
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def pooled_features(backbone: Backbone, images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D): what the published classifier reads; the mean of the last map where that is no vector."""
    found = backbone.model(backbone.prepare(images)) if backbone.options.pretrained else None
    return found if isinstance(found, Tensor) and found.ndim == 2 else backbone.embed(images)


def published_teacher(name: str, size: int, kind: Kind) -> Teacher:
    """Return a timm architecture with its published weights, for images of `size` pixels per side.

    Raises `UserError` for an unknown name, a size that does not work, and weights that cannot be had.
    """
    option = f"pretexts.distil.teacher {name}"
    if "/" in name and ":" not in name:  # local-dir:FOLDER and hf-hub:OWNER/NAME have a colon
        raise UserError(f"{option}: no such run or checkpoint (seen from {str(Path.cwd())!r}).")
    try:
        timm_name(name)
        backbone = Backbone(name, True, image_size=(size, size))
    except UserError as error:
        raise UserError(
            f"{option}: {error} Teachers whose weights need no network: {', '.join(PACKAGED)}, "
            f"{LOCAL}FOLDER (an exported backbone), or a run of yours."
        ) from error
    weights = backbone.weights or {}
    where = str(weights.get("package") or weights.get("weights") or weights.get("path") or name)
    origin = TeacherOrigin(name, where, str(weights.get("trained_on", "not stated")))
    return Teacher(backbone, kind, origin, (size, size))

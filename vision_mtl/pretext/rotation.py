"""Rotation prediction: classify by how many quarter-turns an image was rotated.

Gidaris et al., "Unsupervised representation learning by predicting image rotations", 2018,
https://arxiv.org/abs/1803.07728, sec. 3. Differs from the paper: one random turn per image instead of all four copies,
so that a step costs one pass.
"""
# B images, C channels, H W pixels, K classes

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape

TURNS = 4  # K: 0, 90, 180, 270 degrees counter-clockwise


@PRETEXTS.register("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(Pretext):
    """Predicts how many quarter-turns were applied. Images must be square."""

    label_smoothing: float = 0.0
    """Probability mass spread over all turns, in [0, 1); the paper uses 0."""

    output: ClassVar[Literal["pixels", "logits"]] = "logits"
    class_names: ClassVar[tuple[str, ...]] = ("0°", "90°", "180°", "270°")

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"pretexts.rotation.label_smoothing must lie in [0, 1); found {self.label_smoothing}.")

    def check(self, shape: Shape) -> None:
        if shape[1] != shape[2]:
            raise UserError(f"rotation needs square images; these are {shape[1]} x {shape[2]}. Set its weight to 0.")

    def num_outputs(self, channels: int) -> int:
        return TURNS

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`turn` (B,) int64."""
        return {"turn": keys.integers(TURNS)}

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        turned = torch.empty_like(images)
        for turn in range(TURNS):
            rows = draw["turn"] == turn
            turned[rows] = torch.rot90(images[rows], turn, (2, 3))
        return turned

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        """(B,) int64."""
        return draw["turn"]

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        return F.cross_entropy(prediction.float(), draw["turn"], label_smoothing=self.label_smoothing, reduction="none")

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """The image in all four turns."""
        return images.expand(TURNS, -1, -1, -1), {"turn": torch.arange(TURNS, device=images.device)}

    def damages(self, shape: Shape) -> list[str]:
        """`turn90`: degrees counter-clockwise."""
        return [f"turn{90 * turn}" for turn in range(TURNS)]

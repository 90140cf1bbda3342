"""Heads of supervised tasks: from features to numbers, and from numbers to what a person is told.

`forward` gives what a loss wants; `probabilities` what a user wants. The temperature that calibrates probabilities
(Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599, sec. 4.2) and the unit
of a regression are buffers, so they travel with the weights.
"""
# B images, D feature width, K classes, H W pixels

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vision_mtl.models.decoder import LogitHead, PixelHead

Kind = Literal["single_label", "multi_label", "regression", "dense"]


@dataclass(frozen=True)
class TaskHeadSpec:
    """What a task's head must give. `offset` and `scale` are the labels' mean and standard deviation (regression)."""

    kind: Kind
    num_outputs: int
    offset: float = 0.0
    scale: float = 1.0

    @property
    def is_dense(self) -> bool:
        """Whether every pixel has an answer, which needs the decoder."""
        return self.kind == "dense"


class ClassHead(LogitHead):
    """One class an image: K logits."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, num_outputs)
        self.register_buffer("temperature", torch.ones(()))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(B, K) logits -> (B, K), rows of sum 1, calibrated if a temperature was fitted; float64 logits stay so."""
        return torch.softmax(_tempered(outputs, self.temperature), dim=1)


class LabelsHead(ClassHead):
    """Any number of classes an image: K independent logits."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(B, K) logits -> (B, K), each in [0, 1]; float64 logits stay so."""
        return torch.sigmoid(_tempered(outputs, self.temperature))


class ValueHead(LogitHead):
    """One number an image, in the labels' own unit: (B, 1)."""

    def __init__(self, num_features: int, offset: float, scale: float) -> None:
        super().__init__(num_features, 1)
        self.register_buffer("offset", torch.tensor(offset))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, 1)."""
        return super().forward(last_map).float() * self.scale + self.offset

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The numbers themselves."""
        return outputs.float()


class DenseHead(PixelHead):
    """One class a pixel: (B, K, H, W) logits from the decoder's readout."""

    def __init__(self, width: int, num_outputs: int, stride: int, image_size: tuple[int, int]) -> None:
        super().__init__(width, num_outputs, stride, image_size)
        self.register_buffer("temperature", torch.ones(()))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(B, K, H, W) logits -> (B, K, H, W), summing to 1 at every pixel; float64 logits stay so."""
        return torch.softmax(_tempered(outputs, self.temperature), dim=1)


def build_task_head(
    answer: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
) -> nn.Module:
    """The head for `answer`, freshly initialised; `readout` is the decoder's (width, stride)."""
    if answer.kind == "dense":
        return DenseHead(readout[0], answer.num_outputs, readout[1], image_size)
    if answer.kind == "regression":
        return ValueHead(num_features, answer.offset, answer.scale)
    head = ClassHead if answer.kind == "single_label" else LabelsHead
    return head(num_features, answer.num_outputs)


def _tempered(outputs: Tensor, temperature: Tensor) -> Tensor:
    """Logits of any shape over the temperature, in float32 or wider, wherever the logits are."""
    wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return wide / temperature.to(wide)

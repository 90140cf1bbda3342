"""Heads with probabilities that are calibrated by a temperature.

Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599, sec. 4.2. The
temperature is a buffer, so it is saved with the weights; `evaluation.calibration` fits it.
"""
# B images, D feature width, K outputs, H W pixels

from __future__ import annotations

import torch
from torch import Tensor

from vision_mtl.data.label_kinds import LabelKind
from vision_mtl.models.decoder import LogitHead, PixelHead


class ClassHead(LogitHead):
    """K logits per image, from the last feature map."""

    temperature: Tensor

    def __init__(self, kind: LabelKind, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, num_outputs)
        self.kind = kind
        self.register_buffer("temperature", torch.ones(()))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the kind's probabilities (B, K), divided by the temperature; float64 logits give float64."""
        return self.kind.probabilities(tempered(outputs, self.temperature))


class DenseHead(PixelHead):
    """K logits per pixel, (B, K, H, W), from the decoder's readout."""

    temperature: Tensor

    def __init__(self, kind: LabelKind, width: int, num_outputs: int, stride: int, image_size: tuple[int, int]) -> None:
        super().__init__(width, num_outputs, stride, image_size)
        self.kind = kind
        self.register_buffer("temperature", torch.ones(()))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the kind's probabilities (B, K, H, W), divided by the temperature; float64 logits give float64."""
        return self.kind.probabilities(tempered(outputs, self.temperature))


def tempered(outputs: Tensor, temperature: Tensor) -> Tensor:
    """Return logits of any shape divided by the temperature, in float32 or wider, on the device of the logits."""
    wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return wide / temperature.to(wide)

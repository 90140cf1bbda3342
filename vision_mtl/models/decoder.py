"""The interface of a decoder (feature maps in, one or more readouts out) and the heads on its readouts."""
# B images, D feature width, h w positions, H W pixels

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.registry import Registry

START_STD = 1e-3  # of a new head's weights: the loss is within 1 % of chance, gradients are far above rounding


@dataclass(frozen=True)
class MapSpec:
    """The maps of a backbone at one image size: channels and sizes (h, w), shallow to deep."""

    channels: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    image_size: tuple[int, int]


class Decoder(nn.Module):
    """Base of every decoder.

    `readouts` lists (width, stride) of each readout. All are trained; pictures and skill come from the first. A readout
    is (B, width, ceil(H / stride), ceil(W / stride)).
    """

    reads_last_only: ClassVar[bool] = False  # True: it receives only the deepest map
    needs_all_positions: ClassVar[bool] = True  # False: hidden positions need no encoding; mask tokens replace them

    def __init__(self, maps: MapSpec) -> None:
        super().__init__()
        self.maps = maps
        self.readouts: list[tuple[int, int]] = []

    def forward(
        self, maps: Sequence[Tensor], hidden: Tensor | None = None, drop_draw: Tensor | None = None
    ) -> list[Tensor]:
        """Maps (B, D_i, h_i, w_i), shallow to deep -> one tensor for each readout.

        `hidden` (B, 1, h, w) bool marks positions of the last map that were not encoded. `drop_draw` (B,) in [0, 1) is
        one random number per image, for a decoder that drops inputs in training; None drops nothing.
        """
        raise NotImplementedError

    def grid(self, stride: int) -> tuple[int, int]:
        """(rows, columns) of a readout at `stride` pixels."""
        height, width = self.maps.image_size
        return math.ceil(height / stride), math.ceil(width / stride)


def natural_stride(map_size: tuple[int, int], image_size: tuple[int, int]) -> int:
    """Pixels per position of a map along a side, rounded up, so that the positions cover the image."""
    return max(math.ceil(side / positions) for side, positions in zip(image_size, map_size, strict=True))


def resize_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, D, h, w) -> (B, D, *size), bilinear; unchanged if it has that size already."""
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


class TaskHead(Protocol):
    """The head of a task, as `LabelKind.head` builds it: also a module."""

    def __call__(self, features: Tensor) -> Tensor:
        """Features, the last map or a readout -> outputs."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs -> calibrated probabilities, or numbers for a task without classes."""


class ValueTaskHead(TaskHead, Protocol):
    """The head of a task of numbers, which outputs (number - offset) / scale."""

    def set_unit(self, offset: float, scale: float) -> None:
        """Standardise by another offset and scale, with the same predictions."""


class PixelHead(nn.Module):
    """A readout -> K maps at full resolution: 1x1 convolution and pixel shuffle (Shi et al., 2016, sec. 3.2).

    Weights start near zero instead of at zero, so that the first step already trains the backbone.
    """

    def __init__(self, width: int, num_outputs: int, stride: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.image_size = stride, image_size
        self.project = nn.Conv2d(width, num_outputs * stride**2, kernel_size=1)
        _start_small(self.project)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, K, H, W)."""
        height, width = self.image_size
        return F.pixel_shuffle(self.project(features), self.stride)[..., :height, :width]


class LogitHead(nn.Module):
    """The last map, averaged over positions -> K logits, or K features of a teacher."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)  # unnormalised maps differ in scale by architecture
        self.project = nn.Linear(num_features, num_outputs)
        _start_small(self.project)

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, K)."""
        return self.project(self.norm(last_map.mean(dim=(2, 3))))


class EmbeddingHead(nn.Module):
    """The last map, averaged over positions -> an embedding, by one hidden layer (Chen et al., 2020, sec. 4.2).

    Differs from the paper: layer instead of batch normalisation, so that an embedding does not depend on its batch.
    """

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.hidden = nn.Linear(num_features, num_features)
        self.project = nn.Linear(num_features, num_outputs)

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, K)."""
        return self.project(F.gelu(self.hidden(self.norm(last_map.mean(dim=(2, 3))))))


class FeatureMapHead(LogitHead):
    """The last map -> K features of a teacher at each position, by the same layers."""

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, K, h, w)."""
        return self.project(self.norm(last_map.movedim(1, -1))).movedim(-1, 1)


def _start_small(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=START_STD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def predicts_zero(head: nn.Module) -> bool:
    """Return whether a pretext's head is about as small as `_start_small` makes it, so that it predicts about zero."""
    weight = head.get_parameter("project.weight")  # each kind of head ends in it
    return float(weight.detach().abs().max()) < 10 * START_STD


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """(1, rows * columns, width): fixed two-dimensional sine-cosine positions as in MAE; 4 must divide width."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (row, column)]
    parts = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float()[None]


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Base of a decoder's options: the fields are `decoder.*` in a config, `build` creates the module."""

    registered_name: ClassVar[str]

    def build(self, maps: MapSpec) -> Decoder:
        """Return a new decoder for these maps; raises `UserError` for options out of range."""
        raise NotImplementedError


DECODERS: Registry[type[DecoderOptions]] = Registry("decoder", "vision_mtl.models.decoders")


def decoder_options(values: Mapping[str, Any]) -> DecoderOptions:
    """Return the options of a decoder from `name` and its fields; raises `UserError` for an unknown name."""
    return DECODERS.get(values["name"])(**{key: value for key, value in values.items() if key != "name"})

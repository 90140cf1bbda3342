"""Downsampling: predict the sharp image from a low-resolution one, as the difference to an enlarged image.

Dong et al., "Image super-resolution using deep convolutional networks", 2014, https://arxiv.org/abs/1501.00092; the
residual is Kim et al., "VDSR", 2016, https://arxiv.org/abs/1511.04587, sec. 3.1. The enlarged image is bicubic, then
corrected so that reducing it gives the small image again: Irani and Peleg, "Improving resolution by image
registration", 1991, sec. 3 (iterative back-projection). Differs from the papers: images are reduced by area averages,
which do not alias, and factors may differ within a batch; the first correction is bicubic, the second constant on each
block, which ends the iteration, because the block means then are those of the small image.
"""
# B images, C channels, H W pixels, h w pixels of the small image

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.device_transfer import constant
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape

SHORT, BAND = 64, 32  # pixels: the longest side where one product is fastest, and the band height for longer sides
BACK_PROJECTION = "back_projection"
# the others are modes of F.interpolate; `exact` agrees with other libraries
MODES = ("nearest-exact", "bilinear", "bicubic", BACK_PROJECTION)


@PRETEXTS.register("downsample")
@dataclass(frozen=True, kw_only=True)
class Downsample(Pretext):
    """Reduces the image by `factor` and enlarges it again; scored on all pixels by mean squared error."""

    factor: int | list[int] = 4
    """Factor of reduction along each side, at least 2; a list: one is drawn for each image."""
    enlarged: Literal["back_projection", "bicubic"] = "back_projection"
    """How the small image is enlarged before the network sees it. back_projection: bicubic, corrected to agree with the
    small image; bicubic: uncorrected, as in earlier versions."""

    meaning: ClassVar[tuple[str, ...]] = ("enlarged",)

    classic: ClassVar[str] = "bicubic"

    def __post_init__(self) -> None:
        if not self._factors or min(self._factors) < 2:
            raise UserError(
                f"pretexts.downsample.factor must be 2 or more, or a list of such numbers; found {self.factor!r}."
            )

    @property
    def _factors(self) -> list[int]:
        return [self.factor] if isinstance(self.factor, int) else list(self.factor)

    def check(self, shape: Shape) -> None:
        if max(self._factors) > min(shape[1:]):
            raise UserError(
                f"pretexts.downsample.factor {max(self._factors)} exceeds the image's {min(shape[1:])} pixels."
            )

    def num_outputs(self, channels: int) -> int:
        return channels

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`factor` (B,) int64."""
        return {"factor": constant(tuple(self._factors), keys.device)[keys.integers(len(self._factors))]}

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        if len(self._factors) == 1:
            return reduce_and_enlarge(images, self._factors[0], self.enlarged)
        return self._by_factor(images, draw, self.enlarged)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        return images - self.corrupt(images, draw)

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        return (prediction.float() - self.target(images, draw)).square().mean((1, 2, 3))

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        return (damaged + prediction).clamp(0, 1)

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """Bicubic interpolation without correction."""
        return self._by_factor(images, draw, "bicubic")

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """The image reduced by every factor."""
        factors = torch.tensor(self._factors, device=images.device)
        return images.expand(len(factors), -1, -1, -1), {"factor": factors}

    def damages(self, shape: Shape) -> list[str]:
        """`x4`: the factor."""
        return [f"x{factor}" for factor in self._factors]

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """The small image enlarged by every mode of `MODES`."""
        return {mode: self._by_factor(images, draw, mode) for mode in MODES}

    def _by_factor(self, images: Tensor, draw: Draw, mode: str) -> Tensor:
        """Each image reduced by its factor and enlarged by `mode`."""
        found = torch.empty_like(images)
        for factor in self._factors:
            rows = draw["factor"] == factor
            found[rows] = reduce_and_enlarge(images[rows], factor, mode)
        return found


def reduce_and_enlarge(images: Tensor, factor: int, mode: str = "bicubic") -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): area averages of `factor` x `factor` pixels, interpolated to the original size.

    A side that `factor` does not divide is rounded up to whole pixels. `mode` is one of `MODES`; after
    `back_projection` the area averages are those of the small image, except where values were clipped to [0, 1] or
    `factor` does not divide a side.
    """
    height, width = images.shape[-2:]
    divides = height % factor == 0 and width % factor == 0
    size = (math.ceil(height / factor), math.ceil(width / factor))
    small = _average(images, factor) if divides else F.adaptive_avg_pool2d(images, size)
    if mode == "bicubic":
        return _enlarge(small, (height, width)).clamp_(0, 1)
    if mode == BACK_PROJECTION:
        return _back_projected(small, (height, width)).clamp_(0, 1)
    aligned = {} if mode == "nearest-exact" else {"align_corners": False}
    return F.interpolate(small, size=(height, width), mode=mode, **aligned).clamp_(0, 1)


def _average(images: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / factor, W / factor): block means, faster than `F.avg_pool2d` on a CPU."""
    height, width = images.shape[-2:]
    lines = _sum(images.unflatten(2, (height // factor, factor)), 3)
    return _sum(lines.unflatten(3, (width // factor, factor)), 4).mul_(1 / factor**2)


def _sum(values: Tensor, dim: int) -> Tensor:
    first, second, *others = values.unbind(dim)
    total = first + second
    for other in others:
        total += other
    return total


def _enlarge(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic interpolation as one matrix product per side; faster than `F.interpolate` on a CPU, equal to 1e-6.

    A pixel depends on four pixels of the small image, so each band of rows multiplies only its non-zero columns.
    """
    rows, columns = (
        _bands(before, after, small.device, small.dtype) for before, after in zip(small.shape[-2:], size, strict=True)
    )
    parts = [small[..., band.read] @ band.weights.T for band in columns]
    wide = torch.cat(parts, dim=3) if len(parts) > 1 else parts[0]
    if len(rows) == 1:
        return rows[0].weights @ wide
    enlarged = small.new_empty(*small.shape[:2], *size)
    for band in rows:
        enlarged[:, :, band.written] = band.weights @ wide[:, :, band.read]
    return enlarged


def _back_projected(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic interpolation with a bicubic and a blockwise constant correction.

    Reducing an enlarged image is one (h, h) and one (w, w) matrix, so that the corrections are computed on the small
    image and only one image is enlarged.
    """
    rows, columns = (
        _round_trip(before, after, small.device, small.dtype)
        for before, after in zip(small.shape[-2:], size, strict=True)
    )
    start = 2 * small - rows @ small @ columns.T
    error = small - rows @ start @ columns.T
    enlarged, (height, width) = _enlarge(start, size), small.shape[-2:]
    if size[0] % height or size[1] % width:
        return enlarged.add_(F.interpolate(error, size=size, mode="nearest-exact"))
    blocks = error.repeat_interleave(size[1] // width, 3)[:, :, :, None]  # faster than F.interpolate
    enlarged.unflatten(2, (height, -1)).add_(blocks)
    return enlarged


@lru_cache
def _round_trip(before: int, after: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(before, before): the matrix that enlarges one side and reduces it again."""
    return F.adaptive_avg_pool1d(_bicubic(before, after).T, before).T.contiguous().to(device, dtype)


@dataclass(frozen=True)
class _Band:
    """Pixels `written` of one side, as `weights` (n, m) of the small image's pixels `read`."""

    written: slice
    read: slice
    weights: Tensor


@lru_cache
def _bands(before: int, after: int, device: torch.device, dtype: torch.dtype) -> list[_Band]:
    """The interpolation matrix of one side, split into bands; a short side is one band."""
    matrix, length = _bicubic(before, after), after if after <= SHORT else BAND
    found = []
    for start in range(0, after, length):
        weights = matrix[start : start + length]
        used = weights.abs().amax(0).nonzero()[:, 0]
        read = slice(int(used[0]), int(used[-1]) + 1)
        found.append(_Band(slice(start, start + len(weights)), read, weights[:, read].contiguous().to(device, dtype)))
    return found


@lru_cache
def _bicubic(before: int, after: int) -> Tensor:
    """(after, before): the matrix of `F.interpolate` along one side, from its result on unit vectors."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, size=(after, before), mode="bicubic", align_corners=False)[0, 0]

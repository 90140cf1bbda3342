"""Prototype: grid masking with targets normalised in each cell, or with a share of hidden cells drawn for each image.

Normalised targets are those of He et al., 2022, https://arxiv.org/abs/2111.06377, sec. 3: each cell's pixels less
their mean, divided by their standard deviation. Kept to repeat the trials in `varied_mask.yaml`; no stage uses it.
"""
# B images, C channels, H W pixels, n cells

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.contract import PRETEXTS, Draw
from vision_mtl.pretext.grid_mask import GridMask

SMALLEST = 1e-3  # of a cell's variance: 1e-6 in the authors' code, which makes noise of flat cells a target


@PRETEXTS.register("varied_mask")
@dataclass(frozen=True, kw_only=True)
class VariedMask(GridMask):
    """Grid masking of one square grid with `hidden: ratio`, and two more options."""

    normalise: bool = False
    """Predict each cell's pixels normalised by the cell's own mean and standard deviation."""
    lowest: float = 0.0
    """Smallest share of hidden cells, drawn evenly up to `ratio`; 0: always `ratio`."""

    def _hidden_cells(self, keys: Keys, shared: Keys, grids, which: Tensor, counts: Tensor) -> Tensor:
        if not self.lowest:
            return super()._hidden_cells(keys, shared, grids, which, counts)
        share = keys.fold("share").uniform(low=self.lowest, high=self.ratio)  # (B,)
        number = torch.arange(grids.max_cells, device=keys.device)[None]
        order = shared.bits(grids.max_cells) * grids.max_cells + number  # (B, n)
        amount = (share * grids.max_cells).round().long().clamp(1, grids.max_cells - 1)
        return order.argsort(1).argsort(1) < amount[:, None]

    def hidden_tokens(self, shape, grid):
        return None if self.lowest else super().hidden_tokens(shape, grid)

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        if not self.normalise:
            return super().target(images, draw)
        side = images.shape[-1] // int(self.grid)
        mean = F.avg_pool2d(images, side)
        variance = (F.avg_pool2d(images.square(), side) - mean.square()).clamp(min=0)
        grown = [F.interpolate(m, scale_factor=side) for m in (mean, variance)]
        return (images - grown[0]) / (grown[1] + SMALLEST).sqrt()

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        mask = self.mask(draw, image_shape(images))
        error = torch.where(mask, prediction.float() - self.target(images, draw), 0.0)
        return error.square().sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * images.shape[1])

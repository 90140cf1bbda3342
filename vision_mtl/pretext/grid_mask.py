"""Grid masking: hide cells of a grid over the image and repair them from the rest.

`hidden: one` hides exactly one cell, so that one image gives one damaged instance for each cell of the grid. `ratio`
hides a random subset (He et al., "Masked autoencoders", 2022, https://arxiv.org/abs/2111.06377); `after` hides all
cells after a point in raster order (the image analogue of next-word prediction; Chen et al., "Generative pretraining
from pixels", 2020); `centre` hides the middle, to be predicted from its context, and `all_but_centre` the context, to
be predicted from the middle (as CBOW and skip-gram do; Pathak et al., "Context encoders", 2016,
https://arxiv.org/abs/1604.07379).

Differs from the papers: by default the network predicts the difference to a smooth interpolation of the visible pixels
(`smooth.py`; solved exactly for one cell by `laplace_fill.py`), so that an untrained network already equals classic
inpainting.
"""
# B images, C channels, H W pixels, n cells

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vision_mtl.core.device_transfer import table
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape
from vision_mtl.pretext.grid import Grids, Rectangles, parse_grids
from vision_mtl.pretext.hiding import blank
from vision_mtl.pretext.inpainting import inpaint
from vision_mtl.pretext.laplace_fill import fill_rectangle
from vision_mtl.pretext.smooth import fill_smoothly, mean_of_visible, visible_mean
from vision_mtl.pretext.windows import Windows

HATCH = 6  # pixels from line to line in the hatching of hidden cells


@PRETEXTS.register("grid_mask")
@dataclass(frozen=True, kw_only=True)
class GridMask(Pretext):
    """Hides cells of a grid; scored on hidden pixels by mean squared error."""

    grid: int | str | list[int | str] = 4
    """Cells per side, or rows x columns as 3x5; a list: one is drawn for each image."""
    hidden: Literal["one", "ratio", "after", "centre", "all_but_centre"] = "one"
    """Hidden cells. one: a single random cell; ratio: a random subset; after: all cells after a random one in raster
    order; centre: the middle cells; all_but_centre: all others."""
    ratio: float = 0.6
    """Share of hidden cells for hidden=ratio, in (0, 1); at least one cell is hidden and one visible."""
    fill: Literal["mean", "zero", "noise", "learned"] = "mean"
    """Colour of hidden pixels in the encoder's input. mean: the mean of the visible pixels; zero: black; noise: uniform
    noise; learned: one colour that the model learns."""
    instances_per_image: int | Literal["all"] = 1
    """Damaged copies of an image in an epoch, each with another hidden cell, for hidden=one. all: one for each cell."""
    residual: bool = True
    """true: predict the difference to a smooth interpolation; false: to the mean of the visible pixels."""

    meaning: ClassVar[tuple[str, ...]] = ("residual",)
    classic: ClassVar[str] = "inpainting"

    def __post_init__(self) -> None:
        sizes = self._sizes
        if not 0 < self.ratio < 1:
            raise UserError(f"pretexts.grid_mask.ratio must lie in (0, 1); found {self.ratio}.")
        if self.hidden in ("centre", "all_but_centre") and min(map(min, sizes)) < 3:
            raise UserError(
                f"pretexts.grid_mask.hidden={self.hidden} needs a grid of at least 3 x 3; found {self.grid!r}."
            )
        if any(rows * columns < 2 for rows, columns in sizes):
            raise UserError(f"pretexts.grid_mask.grid must have at least two cells; found {self.grid!r}.")
        fewest = min(rows * columns for rows, columns in sizes)
        if self.instances_per_image != "all" and not 1 <= self.instances_per_image <= fewest:
            raise UserError(
                f"pretexts.grid_mask.instances_per_image must be 1 to {fewest} (the grid's cells) or all; "
                f"found {self.instances_per_image}."
            )
        if self.instances_per_image != 1 and self.hidden != "one":
            raise UserError(f"pretexts.grid_mask.instances_per_image needs hidden=one; found hidden={self.hidden}.")

    @property
    def lists_damages(self) -> bool:
        return self.hidden == "one"

    @cached_property
    def learned_fill(self) -> bool:
        """True if the model fills hidden pixels with its own learned colour."""
        return self.fill == "learned"

    def check(self, shape: Shape) -> None:
        height, width = shape[1:]
        for rows, columns in self._sizes:
            if rows > height or columns > width:
                raise UserError(
                    f"pretexts.grid_mask.grid {rows}x{columns} does not fit an image of {height} x {width} pixels."
                )

    def num_outputs(self, channels: int) -> int:
        return channels

    def num_instances(self, shape: Shape) -> int:
        return min(self._grids(shape).counts) if self.instances_per_image == "all" else self.instances_per_image

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """`grid` (B,) int64 number of the grid, `cells` (B, n) bool hidden cells, `noise` (B, C, H, W) for noise."""
        grids = self._grids(shape)
        shared = keys.shared_by_instances()
        if len(grids.sizes) == 1:  # nothing to draw
            shared.skip(1)
            which = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)
        else:
            which = shared.integers(len(grids.sizes))  # (B,)
        counts = grids.counts_of(which)  # (B,)
        draw = {"grid": which, "cells": self._hidden_cells(keys, shared, grids, which, counts)}
        if self.fill == "noise":
            channels, height, width = shape
            draw["noise"] = keys.fold("noise").uniform(channels * height * width).view(-1, channels, height, width)
        return draw

    def mask(self, draw: Draw, shape: Shape) -> Tensor:
        return self._grids(shape).mask(draw["grid"], draw["cells"])

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        grids = self._grids(shape)
        if len(grids.sizes) > 1 or self.hidden == "after":
            return None
        tokens = grids.tokens_in_a_cell(grid)
        if tokens is None or self.hidden == "one":
            return tokens
        if tokens * grids.max_cells < grid[0] * grid[1]:  # neighbouring cells may hide a token together
            return None
        if self.hidden == "ratio":
            return tokens * int(self._amount(torch.tensor(grids.max_cells)))
        middle = int(_centre_cells(grids).sum())
        return tokens * (middle if self.hidden == "centre" else grids.max_cells - middle)

    def corrupt(self, images: Tensor, draw: Draw) -> Tensor:
        if self.hidden == "one" and self.fill != "noise":
            return self._hide_cells(images, draw)
        mask = self.mask(draw, image_shape(images))
        if self.fill == "noise":
            return torch.where(mask, draw["noise"].to(images.dtype), images)
        damaged = blank(images, mask)
        # in place: allocating a second picture would cost as much as all the rest
        return (
            damaged.addcmul_(mask.to(images.dtype), mean_of_visible(damaged, mask)) if self.fill == "mean" else damaged
        )

    def target(self, images: Tensor, draw: Draw) -> Tensor:
        return images - self._base(images, draw)

    def loss(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        if self.hidden == "one" and self.residual:
            return self._loss_in_cells(prediction, images, draw)
        mask = self.scored(images, draw)
        error = torch.where(mask, prediction.float() - self.target(images, draw), 0.0)
        return error.square().sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * images.shape[1])

    def repair(self, prediction: Tensor, damaged: Tensor, draw: Draw) -> Tensor:
        return (self._base(damaged, draw) + prediction).clamp(0, 1)

    def reference(self, images: Tensor, draw: Draw) -> Tensor:
        """OpenCV's inpainting."""
        return inpaint(images, self.mask(draw, image_shape(images)))

    def picture(self, images: Tensor, draw: Draw) -> Tensor:
        """The image with hidden cells hatched, since the fill of the encoder's input is hard to see."""
        height, width = images.shape[-2:]
        stripes = torch.arange(height, device=images.device)[:, None] + torch.arange(width, device=images.device)
        hatch = torch.where(stripes % HATCH < HATCH // 2, 0.45, 0.85).to(images.dtype)
        return torch.where(self.mask(draw, image_shape(images)), hatch, images)

    def enumerate(self, images: Tensor) -> tuple[Tensor, Draw]:
        """Every one-cell instance of one image, grid by grid, cells in raster order."""
        grids = self._grids(image_shape(images))
        which = torch.arange(len(grids.sizes)).repeat_interleave(torch.tensor(grids.counts))  # (n,)
        cells = torch.cat([torch.eye(count, grids.max_cells, dtype=torch.bool) for count in grids.counts])
        draw = {"grid": which.to(images.device), "cells": cells.to(images.device)}
        return images.expand(len(which), -1, -1, -1), draw

    def damages(self, shape: Shape) -> list[str]:
        """`4x4/r0c2`: rows x columns of the grid, row and column of the hidden cell from 0."""
        sizes = self._grids(shape).sizes
        return [f"{rows}x{cols}/r{r}c{c}" for rows, cols in sizes for r in range(rows) for c in range(cols)]

    def damage_shares(self, shape: Shape) -> Tensor:
        """Uniform over the grids, and over the cells of each."""
        counts = self._grids(shape).counts
        return torch.cat([torch.full((count,), 1 / (count * len(counts))) for count in counts])

    def rules(self, images: Tensor, draw: Draw) -> dict[str, Tensor]:
        """The mean of the visible pixels and OpenCV's inpainting."""
        mask = self.mask(draw, image_shape(images))
        mean = visible_mean(images, mask).expand_as(images)
        return {"visible_mean": mean, "inpainting": inpaint(images, mask)}

    def _base(self, images: Tensor, draw: Draw) -> Tensor:
        """(B, C, H, W): the image that a prediction is added to, from visible pixels only."""
        if self.hidden == "one" and self.residual:
            return self._fill_cells(images, draw)
        mask = self.mask(draw, image_shape(images))
        return fill_smoothly(images, mask) if self.residual else visible_mean(images, mask).expand_as(images)

    def _hide_cells(self, images: Tensor, draw: Draw) -> Tensor:
        """A copy of the images with the single hidden cell of each filled, for hidden=one."""
        cells_of = self._cells(images, draw)  # before the clone, so that large copies follow one another
        damaged = images.clone(memory_format=torch.contiguous_format)
        for windows, cells in cells_of:
            selected = cells.of(damaged)
            windows.fill_(selected, 0.0)
            if self.fill == "mean":
                count = selected[0, 0].numel() - cells.size[0] * cells.size[1]
                windows.paste_(selected, selected.flatten(2).sum(2, keepdim=True) / count)
            if cells.rows is not None:
                damaged.index_copy_(0, cells.rows, selected)
        return damaged

    def _fill_cells(self, images: Tensor, draw: Draw) -> Tensor:
        """A copy of the images with the single hidden cell of each interpolated, for hidden=one."""
        filled = images.clone(memory_format=torch.contiguous_format)
        for windows, cells in self._cells(images, draw):
            selected = cells.of(filled)
            windows.paste_(selected, fill_rectangle(selected, cells.first, cells.size).flatten(2))
            if cells.rows is not None:
                filled.index_copy_(0, cells.rows, selected)
        return filled

    def _loss_in_cells(self, prediction: Tensor, images: Tensor, draw: Draw) -> Tensor:
        """`loss` for hidden=one, computed from the pixels of the hidden cells only."""
        losses = prediction.new_zeros(len(images), dtype=torch.float32)
        images = images.contiguous()
        for windows, cells in self._cells(images, draw):
            selected = cells.of(images)
            true, predicted = windows.cut(selected), windows.cut(cells.of(prediction))
            base = fill_rectangle(selected, cells.first, cells.size).flatten(2)
            loss = (predicted.float() + base - true).square().mean((1, 2))
            losses = loss if cells.rows is None else losses.index_copy(0, cells.rows, loss)
        return losses

    def _cells(self, images: Tensor, draw: Draw) -> list[tuple[Windows, Rectangles]]:
        """The single hidden cell of each image, grouped by size, with the windows that address their pixels."""
        shape = image_shape(images)
        found = self._grids(shape).rectangles(draw["grid"], draw["cells"].view(torch.uint8).argmax(1))
        return [(Windows(cells.first, cells.size, shape, cells.aligned), cells) for cells in found]

    def _hidden_cells(self, keys: Keys, shared: Keys, grids: Grids, which: Tensor, counts: Tensor) -> Tensor:
        """(B, max_cells) bool; cells past the end of an image's own grid are never hidden."""
        number = torch.arange(grids.max_cells, device=keys.device)[None]  # (1, n)
        if self.hidden == "after":
            return (number > keys.integers(counts - 1)[:, None]) & (number < counts[:, None])
        if self.hidden in ("centre", "all_but_centre"):
            centre = table(_centre_cells, (grids,), keys.device, torch.bool)[which]
            return centre if self.hidden == "centre" else ~centre & (number < counts[:, None])
        instance = keys.instance
        if self.hidden == "one" and instance is None:  # a single instance per image needs no permutation of the cells
            return number == shared.integers(counts)[:, None]
        order = shared.bits(grids.max_cells) * grids.max_cells + number  # (B, n) distinct sort keys: a permutation
        if self.hidden == "ratio" and len(grids.sizes) == 1:  # the same number in every image: no need to sort
            last = order.kthvalue(int(self._amount(torch.tensor(grids.max_cells))), dim=1, keepdim=True).values
            return order <= last
        if len(grids.sizes) > 1:
            order = order.masked_fill(number >= counts[:, None], 1 << 62)
        line = order.sort(dim=1).values
        if instance is not None and self.hidden == "one":
            return order == line.gather(1, (instance % counts)[:, None])
        return order <= line.gather(1, self._amount(counts)[:, None] - 1)

    def _amount(self, counts: Tensor) -> Tensor:
        """Number of cells that hidden=ratio hides out of `counts`, elementwise; int64."""
        return (self.ratio * counts).round().long().clamp(min=1).minimum(counts - 1)

    def _grids(self, shape: Shape) -> Grids:
        return Grids(self._sizes, (shape[1], shape[2]))

    @cached_property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each grid."""
        return parse_grids(self.grid)


def _centre_cells(grids: Grids) -> Tensor:
    """(G, max_cells) bool: True for the middle cell of an odd side and the middle two of an even one."""
    table = torch.zeros(len(grids.sizes), grids.max_cells, dtype=torch.bool)
    for row, (rows, columns) in enumerate(grids.sizes):
        cells = table[row, : rows * columns].view(rows, columns)
        cells[(rows - 1) // 2 : rows // 2 + 1, (columns - 1) // 2 : columns // 2 + 1] = True
    return table

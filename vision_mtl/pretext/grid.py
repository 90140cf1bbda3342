"""Grids of cells over images: the cell of every pixel, for a batch whose images may have different grids."""
# B images, G grids to draw from, H W pixels

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.shapes import cell_edges

GridSpec = int | str | Sequence[int | str]


@dataclass(frozen=True)
class Rectangles:
    """Cells of one `size` (h, w) in pixels; `first` (b, 2) holds the first row and column of each.

    `rows` (b,) are their images' rows in the batch; None: all rows, in order. `aligned` is True if all cells start at
    multiples of their size and the size divides the image.
    """

    rows: Tensor | None
    first: Tensor
    size: tuple[int, int]
    aligned: bool

    def of(self, images: Tensor) -> Tensor:
        """Select the cells' rows of a batch: (B, ...) -> (b, ...); returns the batch itself where `rows` is None."""
        return images if self.rows is None else images[self.rows]


@dataclass(frozen=True)
class Grids:
    """G grids for images of one size; `sizes` are (rows, columns) of cells."""

    sizes: tuple[tuple[int, int], ...]
    image_size: tuple[int, int]

    @property
    def counts(self) -> list[int]:
        """Number of cells of each grid."""
        return [rows * columns for rows, columns in self.sizes]

    @property
    def max_cells(self) -> int:
        """Number of cells of the finest grid."""
        return max(self.counts)

    def counts_of(self, which: Tensor) -> Tensor:
        """(B,) grid of each image -> (B,) int64 number of cells."""
        if len(self.sizes) == 1:
            return torch.full_like(which, self.max_cells)
        return _tables(self, which.device)[3][which]

    def cells(self, which: Tensor) -> Tensor:
        """(B,) grid of each image -> (B, H, W) int64: the cell of each pixel, in raster order."""
        rows, columns, widths, _ = _tables(self, which.device)
        return rows[which][:, :, None] * widths[which][:, None, None] + columns[which][:, None, :]

    def mask(self, which: Tensor, hidden: Tensor) -> Tensor:
        """(B,) grids and (B, max_cells) hidden cells -> (B, 1, H, W) bool, True = hidden."""
        if len(self.sizes) == 1:  # one grid: copy whole rows instead of gathering pixel by pixel
            rows, columns, *_ = _tables(self, which.device)
            strips = hidden.view(-1, *self.sizes[0]).index_select(2, columns[0])  # (B, R, W)
            return strips.index_select(1, rows[0])[:, None]
        cells = self.cells(which)
        return hidden.gather(1, cells.flatten(1)).view(cells.shape)[:, None]

    def tokens_in_a_cell(self, grid: tuple[int, int]) -> int | None:
        """Number of tokens of a grid (h, w) inside a cell of the only grid; None if it differs between cells."""
        (cells,) = self.sizes
        down, across = (_whole_tokens(*sides) for sides in zip(self.image_size, cells, grid, strict=True))
        found = {rows * columns for rows in down for columns in across}
        return found.pop() if len(found) == 1 else None

    def rectangles(self, which: Tensor, cell: Tensor) -> list[Rectangles]:
        """(B,) grids and (B,) one cell of each -> the cells in pixels, grouped by size."""
        sizes = _cell_sizes(self)
        corners, extents = _corners(self, which.device)
        if len(sizes) == 1:  # all rows: no search, hence no GPU synchronisation
            first = corners[0].index_select(0, cell)  # (B, 2); cells of a single size mean a single grid
            return [Rectangles(None, first, sizes[0], aligned=True)]
        first, size = corners[which, cell], extents[which, cell]
        found = []
        for one in sizes:
            rows = (size == size.new_tensor(one)).all(1).nonzero()[:, 0]
            if len(rows):
                found.append(Rectangles(rows, first[rows], one, aligned=False))
        return found


# cached per device: another transfer would synchronise with the GPU
@lru_cache
def _tables(grids: Grids, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(G, H) row and (G, W) column of each pixel, (G,) columns and (G,) cells of each grid."""
    height, width = grids.image_size
    rows = torch.stack([_cell_of_pixel(height, r) for r, _ in grids.sizes])
    columns = torch.stack([_cell_of_pixel(width, c) for _, c in grids.sizes])
    widths, counts = torch.tensor([c for _, c in grids.sizes]), torch.tensor(grids.counts)
    return rows.to(device), columns.to(device), widths.to(device), counts.to(device)


@lru_cache
def _corners(grids: Grids, device: torch.device) -> tuple[Tensor, Tensor]:
    """(G, max_cells, 2) int64 each: the first row and column of every cell, and its size; 0 past a grid's last cell."""
    first, size = (torch.zeros(len(grids.sizes), grids.max_cells, 2, dtype=torch.int64) for _ in range(2))
    for number, (rows, columns) in enumerate(grids.sizes):
        edges = [
            torch.tensor(cell_edges(length, n)) for length, n in zip(grids.image_size, (rows, columns), strict=True)
        ]
        first[number, : rows * columns] = torch.cartesian_prod(*(edge[:-1] for edge in edges))
        size[number, : rows * columns] = torch.cartesian_prod(*(edge.diff() for edge in edges))
    return first.to(device), size.to(device)


@lru_cache
def _whole_tokens(length: int, cells: int, tokens: int) -> frozenset[int]:
    """The distinct numbers of tokens that lie inside one cell, along one side of the image."""
    edges = cell_edges(length, cells)
    # the pixels of a token, or those that a part of it shows where images are enlarged: as `models/visible.py` has it
    parts = [(t * length // tokens, -(-(t + 1) * length // tokens)) for t in range(tokens)]
    return frozenset(sum(a <= first and last <= b for first, last in parts) for a, b in itertools.pairwise(edges))


@lru_cache
def _cell_sizes(grids: Grids) -> list[tuple[int, int]]:
    """The distinct cell sizes."""
    sizes = _corners(grids, torch.device("cpu"))[1].flatten(0, 1).unique(dim=0).tolist()
    return [(height, width) for height, width in sizes if height]


def _cell_of_pixel(length: int, cells: int) -> Tensor:
    edges = torch.tensor(cell_edges(length, cells))
    return torch.arange(cells).repeat_interleave(edges.diff())


def parse_grids(spec: GridSpec) -> tuple[tuple[int, int], ...]:
    """`4`, `"3x5"` (rows x columns) or a list of such -> ((rows, columns), ...). Raises `UserError`."""
    specs = [spec] if isinstance(spec, int | str) else list(spec)
    sizes = []
    for one in specs:
        parts = str(one).lower().split("x")
        if len(parts) > 2 or not all(part.strip().isdigit() and int(part) >= 1 for part in parts):
            raise UserError(f"grid must be cells per side (4), rows x columns (3x5) or a list of these; found {one!r}.")
        sizes.append((int(parts[0]), int(parts[-1])))
    if not sizes:
        raise UserError("grid must name at least one grid; found an empty list.")
    return tuple(sizes)

"""Image sizes and grids. Sizes are (height, width) in pixels, grids (rows, columns), cells in raster order."""
# B images, C channels, H W pixels, h w grid cells

from __future__ import annotations

from typing import TYPE_CHECKING

from vision_mtl.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def parse_image_size(value: int | str | list[int] | tuple[int, int]) -> tuple[int, int]:
    """`64`, `"64"`, `"48,64"`, `"48x64"` or `[48, 64]` -> (height, width); raises `UserError` on anything else."""
    parts = value.replace("x", ",").strip("[]() ").split(",") if isinstance(value, str) else value
    if isinstance(parts, int):
        parts = [parts]
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 8:
        raise UserError(f"image_size must be N or H,W in pixels, each at least 8; found {value!r}.")
    return sides[0], sides[-1]


def image_shape(images: Tensor) -> tuple[int, int, int]:
    """The (C, H, W) of a batch (B, C, H, W)."""
    _, channels, height, width = images.shape
    return channels, height, width


def cell_edges(length: int, cells: int) -> list[int]:
    """Borders of `cells` cells along `length` pixels: they tile it exactly and differ by at most one pixel.

    Raises `UserError` for fewer than one cell, or more than pixels.

    >>> cell_edges(10, 4)
    [0, 2, 5, 7, 10]
    """
    if not 1 <= cells <= length:
        raise UserError(f"a grid must have 1 to {length} cells along {length} pixels; found {cells}.")
    return [i * length // cells for i in range(cells + 1)]

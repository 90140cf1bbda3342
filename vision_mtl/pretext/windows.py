"""One rectangle of each image, of a common size: read it, fill it, write it."""
# B images, C channels, H W pixels, h w pixels of a rectangle

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.pretext.contract import Shape


class Windows:
    """Rectangles of `size` (h, w) in images of `shape` (C, H, W); `first` (B, 2) int64 are the first rows and columns.

    With `aligned`, first columns and W must be multiples of w. Whole rows of a rectangle are then moved at once, which
    takes half the time of moving single pixels.
    """

    def __init__(self, first: Tensor, size: tuple[int, int], shape: Shape, aligned: bool = False) -> None:
        self.size, self.shape = size, shape
        self.piece = size[1] if aligned else 1  # pixels moved at once
        channels, height, width = shape
        pieces = width // self.piece  # per row of an image
        step = channels * height * pieces  # per image
        begin = torch.arange(0, len(first) * step, step, device=first.device)
        begin = begin + first[:, 0] * pieces + first[:, 1] // self.piece
        # piece numbers in the memory of the whole batch
        self.index = (begin[:, None] + _offsets(size, shape, self.piece, first.device)).flatten()

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h * w): the pixels of the rectangles, row by row."""
        rows = images.contiguous().view(-1, self.piece).index_select(0, self.index)
        return rows.view(len(images), self.shape[0], -1)

    def fill_(self, images: Tensor, value: float) -> None:
        """Set the rectangles of contiguous images (B, C, H, W) to `value`, in place."""
        images.view(-1, self.piece).index_fill_(0, self.index, value)

    def paste_(self, images: Tensor, values: Tensor) -> None:
        """Write `values` (B, C, h * w), or (B, C, 1) for one colour, into contiguous images (B, C, H, W), in place."""
        values = values.expand(-1, -1, self.size[0] * self.size[1]).reshape(-1, self.piece)
        images.view(-1, self.piece).index_copy_(0, self.index, values)


@lru_cache(maxsize=64)
def _offsets(size: tuple[int, int], shape: Shape, piece: int, device: torch.device) -> Tensor:
    """(n,) int64: offsets of the pieces of a rectangle from its first one, in pieces."""
    channels, height, width = shape
    pieces = width // piece
    rows = torch.arange(size[0])[:, None] * pieces + torch.arange(size[1] // piece)
    return (torch.arange(channels)[:, None] * (height * pieces) + rows.flatten()).flatten().to(device)

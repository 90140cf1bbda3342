"""One rectangle of each image: cut out, and put in."""
# B images, C channels, H W pixels, h w pixels of a rectangle

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.pretext.contract import Shape


class Windows:
    """Rectangles of `size` (h, w) whose first pixels (row, column) are `first` (B, 2) int64, in images of `shape`
    (C, H, W).

    `aligned`: columns begin at multiples of w, and W is one. A row of a rectangle is then a row of the image's memory,
    cut into pieces of w, and is moved whole: half the time of pixel by pixel.
    """

    def __init__(self, first: Tensor, size: tuple[int, int], shape: Shape, aligned: bool = False) -> None:
        self.size, self.shape = size, shape
        self.piece = size[1] if aligned else 1  # pixels that are moved at once
        channels, height, width = shape
        pieces = width // self.piece  # of an image's row
        step = channels * height * pieces  # of an image
        begin = torch.arange(0, len(first) * step, step, device=first.device)
        begin = begin + first[:, 0] * pieces + first[:, 1] // self.piece
        # pieces, in all images as one row of memory
        self.index = (begin[:, None] + _offsets(size, shape, self.piece, first.device)).flatten()

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h * w): the rectangles' pixels, row by row."""
        rows = images.contiguous().view(-1, self.piece).index_select(0, self.index)
        return rows.view(len(images), self.shape[0], -1)

    def fill_(self, images: Tensor, value: float) -> None:
        """Set the rectangles of contiguous images (B, C, H, W) to one number."""
        images.view(-1, self.piece).index_fill_(0, self.index, value)

    def paste_(self, images: Tensor, values: Tensor) -> None:
        """Put `values` (B, C, h * w), or (B, C, 1) for one colour each, into contiguous images (B, C, H, W)."""
        values = values.expand(-1, -1, self.size[0] * self.size[1]).reshape(-1, self.piece)
        images.view(-1, self.piece).index_copy_(0, self.index, values)


@lru_cache(maxsize=64)
def _offsets(size: tuple[int, int], shape: Shape, piece: int, device: torch.device) -> Tensor:
    """(n,) int64: where the pieces of a rectangle lie behind its first, counted in pieces of an image's memory."""
    channels, height, width = shape
    pieces = width // piece
    rows = torch.arange(size[0])[:, None] * pieces + torch.arange(size[1] // piece)
    return (torch.arange(channels)[:, None] * (height * pieces) + rows.flatten()).flatten().to(device)

"""Crops of an image whose features are averaged, as EMP-SSL evaluates its networks.

Tong et al., "EMP-SSL: Towards self-supervised learning in one training epoch", 2023, https://arxiv.org/abs/2304.03977,
sec. 3.1. Differs from the paper: the crops are fixed, not drawn, so that a probe can be repeated, and the first is the
whole image.
"""
# B images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 0.75  # of a crop, as a share of the image's side; crops of .5 gained less on validation images


def crops_of(images: Tensor, count: int) -> Iterator[Tensor]:
    """Yield `count` crops of images (B, C, H, W), each enlarged to (B, C, H, W); the first is the whole image."""
    yield images
    for number in range(1, count):
        down, across = (2 * _halton(number, base) - 1 for base in (2, 3))  # of the free space, -1 to 1
        offset = 1 - SIDE
        window = torch.tensor([[SIDE, 0.0, across * offset], [0.0, SIDE, down * offset]], device=images.device)
        grid = F.affine_grid(window.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        yield F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _halton(number: int, base: int) -> float:
    """Return the `number`-th point of Halton's sequence in (0, 1), evenly spread for any count of points."""
    found, digit = 0.0, 1.0
    while number:
        digit /= base
        found += digit * (number % base)
        number //= base
    return found

"""To the pool's size and channels, without aliasing: area averages where a side shrinks, linear where it grows."""
# H W pixels, C channels

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from vision_mtl.core.errors import UserError

Fit = Literal["stretch", "crop", "pad"]


def resize(image: np.ndarray, size: tuple[int, int], fit: Fit = "stretch") -> np.ndarray:
    """(H, W, C) uint8 -> (*size, C) uint8.

    `stretch` scales each side on its own; `crop` scales so that the image covers `size` and keeps the centre; `pad`
    scales so that it fits inside and surrounds it with its own mean colour.
    """
    height, width = image.shape[:2]
    if fit == "stretch":
        return _scale(image, size)
    ratios = size[0] / height, size[1] / width
    scale = max(ratios) if fit == "crop" else min(ratios)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    if fit == "crop":  # crop first: a panorama would be scaled to millions of pixels
        rows, columns = (
            min(side, max(1, round(asked / scale))) for side, asked in zip((height, width), size, strict=True)
        )
        top, left = (height - rows) // 2, (width - columns) // 2
        return _scale(image[top : top + rows, left : left + columns], size)
    scaled = _scale(image, inner)
    canvas = np.empty((*size, image.shape[2]), np.uint8)
    canvas[:] = scaled.mean((0, 1)).round()
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = scaled
    return canvas


def _scale(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrinking sides first, then growing ones: OpenCV's area method averages only if no side grows."""
    height, width = image.shape[:2]
    shrunk = min(height, size[0]), min(width, size[1])
    image = np.ascontiguousarray(image)
    for target, method in ((shrunk, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if image.shape[:2] != target:
            image = cv2.resize(image, target[::-1], interpolation=method)
            image = image[..., None] if image.ndim == 2 else image
    return image


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, C) uint8 with `channels` channels: grey is repeated, colour becomes Rec. 601 luma. Raises `UserError`."""
    found = image.shape[2]
    if found == channels:
        return image
    if found == 1:
        return np.repeat(image, channels, axis=2)
    if found == 3 and channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    raise UserError(f"backbone.in_chans is {channels}, but the images have {found} channels; use 1 or {found}.")

"""Resizes images and masks to the pool's size without aliasing: area average to shrink, linear to enlarge."""
# H W pixels, C channels

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from vision_mtl.core.errors import UserError

Fit = Literal["stretch", "crop", "pad"]
CV_CHANNELS = 4  # that OpenCV resizes at once
MISFIT = 0.2  # largest shift of an edge by a reduced decode, in pixels of the resized image


def resize(
    image: np.ndarray, size: tuple[int, int], fit: Fit = "stretch", of: tuple[int, int] | None = None
) -> np.ndarray:
    """Resize (H, W, C) to (*size, C), in 8 bits or 16-bit levels.

    `stretch` scales height and width independently; `crop` scales the image to cover `size` and keeps the centre; `pad`
    scales it to fit inside and fills the border with its mean colour. `of` is the (height, width) of the original if
    `image` was decoded at a reduced scale (`reduction`): it is cut and placed as the original would be.
    """
    if fit == "stretch":
        return _scale(image, size)
    shape = of or image.shape[:2]
    if fit == "crop":  # crop first: a panorama would be scaled to millions of pixels
        scale = -(-shape[0] // image.shape[0])
        parts = (_shrunk(part, side, scale) for part, side in zip(_centre(shape, size), shape, strict=True))
        return _scale(image[tuple(parts)], size)
    inner, place = _inner(shape, size)
    scaled = _scale(image, inner)
    canvas = np.empty((*size, image.shape[2]), image.dtype)
    canvas[:] = scaled.mean((0, 1)).round()
    canvas[place] = scaled
    return canvas


def reduction(shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> int:
    """Return the scale, 1, 2, 4 or 8, at which a decoder may shrink an image of `shape` before `resize` to `size`.

    Height and width stay at least as large as in `size`. Reduced pixels may not align with the crop or the image's
    edge; scales that would shift the image by more than `MISFIT` are not used.
    """
    asked = _inner(shape, size)[0] if fit == "pad" else size
    parts = _centre(shape, size) if fit == "crop" else tuple(slice(0, side) for side in shape)
    for scale in (8, 4, 2):
        if all(_may_shrink(*given, scale) for given in zip(parts, shape, asked, strict=True)):
            return scale
    return 1


def _may_shrink(part: slice, side: int, length: int, scale: int) -> bool:
    """Return True if one side may be reduced by `scale`, when its `part` becomes `length` pixels."""
    smaller, kept = _shrunk(part, side, scale), part.stop - part.start
    off = max(abs(smaller.start * scale - part.start), abs(smaller.stop * scale - part.stop))
    return kept >= scale * length <= (smaller.stop - smaller.start) * scale and off * length <= MISFIT * kept


def _shrunk(part: slice, side: int, scale: int) -> slice:
    """Return the position of a part of a side after a reduction by `scale`, which rounds the side up."""
    last = -(-side // scale)
    return slice(round(part.start / scale), last if part.stop == side else round(part.stop / scale))


def resize_mask(mask: np.ndarray, size: tuple[int, int], fit: Fit, outside: int) -> np.ndarray:
    """Resize (H, W) integers to (*size) by the nearest pixel; `outside` fills the border of `pad`."""
    if fit == "stretch":
        return _nearest(mask, size)
    if fit == "crop":
        return _nearest(mask[_centre(mask.shape, size)], size)
    inner, place = _inner(mask.shape, size)
    canvas = np.full(size, outside, mask.dtype)
    canvas[place] = _nearest(mask, inner)
    return canvas


def restore_mask(mask: np.ndarray, shape: tuple[int, int], fit: Fit, outside: int) -> np.ndarray:
    """Undo `fit` by the nearest pixel: a mask (H, W) of a resized image -> a mask (*shape) of the original image.

    `outside` fills the part that `crop` cut away.
    """
    if fit == "stretch":
        return _nearest(mask, shape)
    if fit == "pad":
        return _nearest(mask[_inner(shape, mask.shape)[1]], shape)
    canvas = np.full(shape, outside, mask.dtype)
    part = _centre(shape, mask.shape)
    canvas[part] = _nearest(mask, canvas[part].shape)
    return canvas


def _centre(shape: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the central part of an image that has the aspect ratio of `size`."""
    scale = max(asked / side for side, asked in zip(shape, size, strict=True))
    kept = [min(side, max(1, round(asked / scale))) for side, asked in zip(shape, size, strict=True)]
    rows, columns = (slice((side - k) // 2, (side - k) // 2 + k) for side, k in zip(shape, kept, strict=True))
    return rows, columns


def _inner(shape: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """Return the size of a whole image scaled to fit inside `size`, and its position there."""
    scale = min(asked / side for side, asked in zip(shape, size, strict=True))
    height, width = (max(1, round(side * scale)) for side in shape)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return (height, width), (slice(top, top + height), slice(left, left + width))


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        ((np.arange(asked) + 0.5) * side / asked).astype(np.int64) for side, asked in zip(mask.shape, size, strict=True)
    )
    return mask[rows[:, None], columns]


def _scale(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink first, then enlarge: OpenCV's area method averages only if neither height nor width grows."""
    if image.shape[2] > CV_CHANNELS:
        parts = range(0, image.shape[2], CV_CHANNELS)
        return np.concatenate([_scale(image[..., at : at + CV_CHANNELS], size) for at in parts], axis=2)
    height, width = image.shape[:2]
    shrunk = min(height, size[0]), min(width, size[1])
    image = np.ascontiguousarray(image)
    for target, method in ((shrunk, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if image.shape[:2] != target:
            image = cv2.resize(image, target[::-1], interpolation=method)
            image = image[..., None] if image.ndim == 2 else image
    return image


def to_channels(image: np.ndarray, channels: int, name: object = "an image") -> np.ndarray:
    """Convert (H, W, C) to `channels`: grey is repeated for RGB, and RGB becomes Rec. 601 luma for 1.

    Raises `UserError` as `check_channels` does.
    """
    found = image.shape[2]
    if found == channels:
        return image
    check_channels(found, channels, name)
    return np.repeat(image, 3, axis=2) if found == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def check_channels(found: int, channels: int, name: object) -> None:
    """Raise `UserError` with an image's `name` if its `found` channels cannot become `channels`."""
    if found == channels or (found, channels) in ((1, 3), (3, 1)):
        return
    works = " or ".join(map(str, sorted({found, 1, 3} if found in (1, 3) else {found})))
    raise UserError(
        f"{str(name)!r} has {found} channels, but backbone.in_chans is {channels} (in --stage data: data.channels): "
        f"give {works}. All images of a run need as many; only grey and RGB are converted."
    )

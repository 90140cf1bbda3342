"""The scale of pixel values: 8 bits, or the levels of a range that all deep images of a source share.

A file declares what full scale means (8 bits, the maximum of a PGM file), or it holds numbers without a scale: 16-bit
and 32-bit integers, signed integers, floats. Those become 16-bit levels, 0 to 65535, between the `low` and `high` of
their source's range. Values outside are clipped; NaN becomes `low`.
"""
# H W pixels, C channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from vision_mtl.core.errors import UserError

LEVELS = 65535  # the largest 16-bit level
BYTE_LEVELS = LEVELS // 255  # levels of one 8-bit step: 255 * 257 is 65535
DECLARED = "declared"


class Raw(NamedTuple):
    """An image file's own numbers: (H, W, C), and the number that means full scale, if the file declares one."""

    values: np.ndarray
    maximum: float | None


@dataclass(frozen=True)
class ValueRange:
    """The values that become 0 and 1 (`low` < `high`), and where they are from, as text.

    `kind` is the only kind of numbers that the range is for: a type, `integer`, `float`, or "" for all.
    """

    low: float
    high: float
    origin: str = DECLARED
    kind: str = ""

    def suits(self, kind: str) -> bool:
        """Return True if the range is for numbers of the type `kind`."""
        return self.kind in ("", kind, kind_of(kind))

    def __str__(self) -> str:
        return f"{self.low:.10g} to {self.high:.10g}"


def kind_of(kind: str) -> str:
    """Return `integer` or `float` for the name of a type of numbers."""
    return "float" if np.dtype(kind).kind == "f" else "integer"


def full_range(kind: str, name: object) -> ValueRange:
    """Return the whole range of an integer type; raises `UserError` with the `name` of the images for floats."""
    if np.dtype(kind).kind not in "iu":
        raise UserError(f"{name} has {kind} values, which have no full range: declare two numbers as value_range.")
    limits = np.iinfo(kind)
    return ValueRange(float(limits.min), float(limits.max), f"full range of {kind}", kind)


Scale = ValueRange | Literal["full"] | None  # the range of deep images, that of their integer type, or unknown


class DeepImage(Exception):
    """A deep image where its range is unknown, or which `has_maximum`, declared by its file, in a place for 8 bits.

    `kind` is the type of its numbers.
    """

    def __init__(self, kind: str, has_maximum: bool = False) -> None:
        self.kind, self.has_maximum = kind, has_maximum
        super().__init__(f"its {kind} values have no declared maximum, and the range that becomes 0 to 1 is unknown")


def is_deep(pixels: np.ndarray) -> bool:
    """Return True for pixels in 16-bit levels, False for 8 bits."""
    return pixels.dtype != np.uint8


def to_levels(raw: Raw, value_range: Scale, name: object = "an image") -> np.ndarray:
    """Return an image (H, W, C) in 8 bits if the file has 8, else in 16-bit levels.

    Raises `DeepImage` for numbers without a declared maximum if there is no range, and `UserError` with the image's
    `name` if the range is for another type.
    """
    values, maximum = raw
    if maximum == 255 and values.dtype == np.uint8:
        return values
    if maximum is not None:
        value_range = ValueRange(0, maximum)
    if value_range is None:
        raise DeepImage(values.dtype.name)
    if value_range == "full":
        value_range = full_range(values.dtype.name, repr(str(name)))
    if not value_range.suits(values.dtype.name):
        raise UserError(
            f"{str(name)!r} has {values.dtype} values, and the range {value_range} ({value_range.origin}) is for "
            f"{value_range.kind} ones: their scales differ. Declare the range of these values as value_range, or keep "
            "them in a source of their own."
        )
    low, high = value_range.low, value_range.high
    if values.dtype == np.uint16 and (low, high) == (0, LEVELS):
        return values
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:  # a table of all values: no floats for each pixel
        table = _scaled(np.arange(1 << 16, dtype=np.uint16).view(values.dtype), low, high)
        return table[values.view(np.uint16)]
    return _scaled(values, low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values of any shape in 16-bit levels: in float64, because float32 does not hold all 32-bit integers."""
    scaled = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.round(np.nan_to_num(scaled, nan=0.0) * LEVELS).astype(np.uint16)


def widened(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of any shape in 16-bit levels: 8 bits times 257, so that 255 is full scale."""
    return pixels if is_deep(pixels) else pixels.astype(np.uint16) * np.uint16(BYTE_LEVELS)


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return images (H, W, C) as (n, H, W, C): in 8 bits if all of them are, else in 16-bit levels."""
    return np.stack([widened(image) for image in images] if any(map(is_deep, images)) else images)


def full_scale(pixels: np.ndarray) -> int:
    """Return the value of pixels that means 1: 255 or 65535."""
    return LEVELS if is_deep(pixels) else 255


def floats(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of any shape as float32 in [0, 1]."""
    return pixels.astype(np.float32) / full_scale(pixels)


def bytes_of(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of any shape rounded to 8 bits, for pictures."""
    return np.round(pixels / BYTE_LEVELS).astype(np.uint8) if is_deep(pixels) else pixels

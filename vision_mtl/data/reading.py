"""Reads an item of a source at the pool's size, with a hash of its content; examines one without resizing it."""
# H W pixels, C channels

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vision_mtl.data import jpeg
from vision_mtl.data.decode import MAX_PIXELS, check_size, decode_fitted, decode_raw
from vision_mtl.data.depth import Raw, ValueRange, to_levels
from vision_mtl.data.resize import Fit, resize, to_channels
from vision_mtl.data.source import Item, Source, holds_files


@dataclass(frozen=True)
class Examined:
    """What an image is without resizing it: its content hash, its channels, and the numbers of a deep image.

    `kind` is the type of a deep image's numbers, "" for 8 bits; `low` and `high` are its least and largest finite
    numbers, NaN if its file declares their maximum.
    """

    content: int
    channels: int
    kind: str = ""
    low: float = np.nan
    high: float = np.nan


def read_item(
    source: Source,
    item: Item,
    size: tuple[int, int],
    channels: int,
    fit: Fit,
    value_range: ValueRange | None = None,
) -> tuple[np.ndarray, int]:
    """Return (pixels (*size, channels), content hash): in 8 bits, or in 16-bit levels for a deep image.

    The 64-bit content hash is equal for exact duplicates and independent of `size`. For a plain JPEG file it covers the
    encoded image, for any other image the decoded numbers. Raises `data.decode.UnreadableImage`, and `DeepImage` if the
    range of a deep image is missing.
    """
    if holds_files(source):
        data = source.encoded(item)
        header = jpeg.read_header(data)
        if header is not None:
            return decode_fitted(data, name_of(item), size, channels, fit)[0], jpeg.content(data, header)
        raw = decode_raw(data, name_of(item))
    else:
        raw = raw_of(source.read(item))
    image = to_levels(raw, value_range, name_of(item))
    return to_channels(resize(image, size, fit), channels, name_of(item)), pixel_hash(raw.values)


def examine_item(source: Source, item: Item, decode_all: bool = False) -> Examined:
    """Return what an image is; a plain JPEG file is decoded only with `decode_all`.

    Raises `UnreadableImage`. Damage inside a JPEG file that is not decoded is found only later.
    """
    if holds_files(source):
        data = source.encoded(item)
        header = jpeg.read_header(data)
        if header is not None:
            check_size(name_of(item), *header.shape, MAX_PIXELS)
            if decode_all:
                decode_raw(data, name_of(item))
            return Examined(jpeg.content(data, header), header.channels)
        raw = decode_raw(data, name_of(item))
    else:
        raw = raw_of(source.read(item))
    found = Examined(pixel_hash(raw.values), raw.values.shape[2])
    if raw.maximum == 255 and raw.values.dtype == np.uint8:
        return found
    low, high = (np.nan, np.nan) if raw.maximum is not None else limits(raw.values)
    return replace(found, kind=raw.values.dtype.name, low=low, high=high)


def finite_values(source: Source, item: Item) -> np.ndarray:
    """Return the finite numbers (m,) of an image, without resizing it. Raises `UnreadableImage`."""
    values = decode_raw(source.encoded(item), name_of(item)).values if holds_files(source) else source.read(item)
    return values[np.isfinite(values)]


def raw_of(values: np.ndarray) -> Raw:
    """Return an image (H, W, C) of a source without files: 8 bits are full scale, other numbers have no scale."""
    return Raw(values, 255 if values.dtype == np.uint8 else None)


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest finite value of an array of any shape that has one."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return float(finite.min()), float(finite.max())


def name_of(item: Item) -> Path | str:
    """Return the item's name in error messages."""
    return item.path or item.identity


def pixel_hash(image: np.ndarray) -> int:
    """Return a 64-bit hash of the decoded pixels (H, W, C), their shape and type."""
    kind = "" if image.dtype == np.uint8 else image.dtype.name
    digest = hashlib.blake2b(f"{image.shape!r}{kind}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest(), "little")

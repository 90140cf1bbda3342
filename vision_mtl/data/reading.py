"""Reads an item of a source at the pool's size, with a hash of its content."""
# H W pixels, C channels

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vision_mtl.data import jpeg
from vision_mtl.data.decode import MAX_PIXELS, check_size, decode_bytes, decode_fitted
from vision_mtl.data.resize import Fit, resize, to_channels
from vision_mtl.data.source import EncodedSource, Item, Source, holds_files


def read_item(source: Source, item: Item, size: tuple[int, int], channels: int, fit: Fit) -> tuple[np.ndarray, int]:
    """Return ((*size, channels) uint8, content hash). Raises `data.decode.UnreadableImage`.

    The 64-bit content hash is equal for exact duplicates and independent of `size`. For a plain JPEG file it covers the
    encoded image, for any other image the decoded pixels.
    """
    if not holds_files(source):
        image = source.read(item)
        return to_channels(resize(image, size, fit), channels), pixel_hash(image)
    data = source.encoded(item)
    header = jpeg.read_header(data)
    if header is None:
        image = decode_bytes(data, name_of(item))
        return to_channels(resize(image, size, fit), channels), pixel_hash(image)
    return decode_fitted(data, name_of(item), size, channels, fit)[0], jpeg.content(data, header)


def examine_item(source: EncodedSource, item: Item) -> int:
    """Return the content hash of `read_item`; only images other than plain JPEG files are decoded.

    Raises `UnreadableImage`. Damage inside a plain JPEG file is found only later, when it is decoded.
    """
    data = source.encoded(item)
    header = jpeg.read_header(data)
    if header is None:
        return pixel_hash(decode_bytes(data, name_of(item)))
    check_size(name_of(item), *header.shape, MAX_PIXELS)
    return jpeg.content(data, header)


def name_of(item: Item) -> Path | str:
    """Return the item's name in error messages."""
    return item.path or item.identity


def pixel_hash(image: np.ndarray) -> int:
    """Return a 64-bit hash of the decoded pixels (H, W, C) and their shape."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest(), "little")

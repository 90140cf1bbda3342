"""An item of a source as the pool keeps it, and what tells it from other pictures."""
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
    """((*size, channels) uint8, its content). Raises `data.decode.UnreadableImage`.

    The content is 64 bits, equal for exact duplicates whatever the size: of a plain JPEG file its coded picture, of any
    other image its decoded pixels.
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
    """The same content; pixels are decoded only where there is no telling without. Raises as `read_item` does.

    What a plain JPEG file hides behind a sound header and before its end comes out when it is decoded.
    """
    data = source.encoded(item)
    header = jpeg.read_header(data)
    if header is None:
        return pixel_hash(decode_bytes(data, name_of(item)))
    check_size(name_of(item), *header.shape, MAX_PIXELS)
    return jpeg.content(data, header)


def name_of(item: Item) -> Path | str:
    """What an error calls it."""
    return item.path or item.identity


def pixel_hash(image: np.ndarray) -> int:
    """64 bits of the decoded pixels (H, W, C) and their shape."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest(), "little")

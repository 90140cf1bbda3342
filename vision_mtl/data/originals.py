"""What the images of a source are before they are resized: width, height, mode and format.

Files are not decoded: their headers tell. Of a source without files, images are read.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from vision_mtl.data import tiff
from vision_mtl.data.decode import FORMATS, ORIENTATION, PNG_DEPTH, decode_bytes
from vision_mtl.data.source import Item, Source, holds_files
from vision_mtl.data.store import Progress

MAX_FILES, MAX_READ = 1000, 50  # images examined, at even steps: a header costs 0.1 ms, a drawn image 3 ms
WORDS = {"1": "black and white", "L": "grey", "LA": "grey + alpha", "P": "palette", "RGBA": "RGB + alpha"} | {
    "I;16": "grey 16 bit", "I;16B": "grey 16 bit", "I": "grey 32 bit", "F": "grey float",
}  # fmt: skip


@dataclass(frozen=True)
class Original:
    """An image as it came: `width` x `height` pixels, upright; its `mode` in words; "" is the format of pixels."""

    width: int
    height: int
    mode: str
    format: str = ""


def describe_originals(source: Source, items: Sequence[Item], name: str, report: Progress) -> dict[str, Any]:
    """Return the formats, modes, widths and heights of a source's images, of at most 1,000 if there are more.

    Images that cannot be read are left out.
    """
    most = MAX_FILES if holds_files(source) else MAX_READ
    rows = np.unique(np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)).tolist()
    found = []
    for done, row in enumerate(rows, start=1):
        with suppress(Exception):  # decoders raise many types; the pool has told which files are damaged
            found.append(original(source, items[row]))
        report(f"original sizes of {name}", done, len(rows))
    sizes = {side: _spread([getattr(one, side) for one in found]) for side in ("width", "height")} if found else {}
    counts = {
        f"{word}s": dict(Counter(getattr(one, word) for one in found).most_common()) for word in ("mode", "format")
    }
    return {"examined": len(found), "of": len(items), **sizes, **counts}


def _spread(values: Sequence[int]) -> dict[str, int]:
    return {"low": min(values), "median": int(np.median(values)), "high": max(values)}


def original(source: Source, item: Item) -> Original:
    """Return what an item is. Raises various errors for a damaged file."""
    if not holds_files(source):
        return _of_pixels(source.read(item))
    if item.path is not None:
        with item.path.open("rb") as file:
            return _of_file(file)
    return _of_file(io.BytesIO(source.encoded(item)))


def _of_pixels(pixels: np.ndarray, format_name: str = "") -> Original:
    height, width, channels = pixels.shape
    mode = {1: "grey", 3: "RGB"}.get(channels, f"{channels} bands")
    return Original(width, height, mode if pixels.dtype == np.uint8 else f"{mode} {pixels.dtype.name}", format_name)


def _of_file(file: BinaryIO) -> Original:
    head = file.read(PNG_DEPTH + 1)
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height, mode, name = *image.size, WORDS.get(image.mode, image.mode), image.format or ""
            # Pillow would decode a whole PNG file to find its orientation
            if name == "JPEG" and image.getexif().get(ORIENTATION, 1) in tiff.SIDEWAYS:
                width, height = height, width
    except UnidentifiedImageError:  # Pillow refuses TIFF files of many bands
        file.seek(0)
        return _of_pixels(decode_bytes(file.read(), "image"), "TIFF")
    deep = name == "PNG" and head[PNG_DEPTH] == 16 and "bit" not in mode
    return Original(width, height, f"{mode} 16 bit" if deep else mode, name)

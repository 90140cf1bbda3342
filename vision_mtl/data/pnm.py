"""Reads PGM and PPM files whose maximum is not 255, or whose numbers are text: their values are full scale at it.

http://netpbm.sourceforge.net/doc/pgm.html and ppm.html. Pillow rounds deep colours to 8 bits and OpenCV ignores the
maximum, so both are used only for a maximum of 255.
"""
# H W pixels, C channels

from __future__ import annotations

import re

import numpy as np

from vision_mtl.data.depth import Raw

_GAP = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
HEADER = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)[ \t\r\n\v\f]")
COMMENT = re.compile(rb"#[^\r\n]*")
LARGEST = 65535  # maximum that the format allows
TEXT = b"23"


def read_header(data: bytes) -> tuple[int, int] | None:
    """Return (H, W) of a PGM or PPM file that this module reads; None for other files and a binary maximum of 255."""
    found = HEADER.match(data)
    if found is None or (found[1] not in TEXT and int(found[4]) == 255):
        return None
    return int(found[3]), int(found[2])


def read(data: bytes) -> Raw:
    """Return the image of a file with a `read_header`. Raises `ValueError` for a damaged file."""
    found = HEADER.match(data)
    assert found is not None, "read_header matched"
    width, height, maximum = (int(found[i]) for i in (2, 3, 4))
    channels = 3 if found[1] in b"36" else 1
    if not 0 < maximum <= LARGEST:
        raise ValueError(f"its maximum must lie in 1 to {LARGEST}; found {maximum}")
    if not width or not height:
        raise ValueError("it has no pixel")
    count = width * height * channels
    if found[1] in TEXT:
        values = np.array(COMMENT.sub(b"", data[found.end() :]).split()[:count], "S").astype(np.int64)
    else:
        values = np.frombuffer(data[found.end() :], np.uint8 if maximum < 256 else ">u2")[:count]
    if len(values) < count:
        raise ValueError(f"it holds {len(values)} of {count} values")
    if values.min() < 0 or values.max() > maximum:
        raise ValueError(f"a value is beyond its maximum, {maximum}")
    shaped = values.reshape(height, width, channels)
    if maximum > 255:
        return Raw(shaped.astype(np.uint16), maximum)
    return Raw(np.round(shaped * (255 / maximum)).astype(np.uint8), 255)

"""Parses the headers of JPEG files without a decoder: size, channels, orientation, offset of the first scan.

Most images are plain JPEG files, and reading their headers takes a hundredth of the time in which Pillow opens one. The
header allows decoding at a reduced scale and comparing files without decoding. Files that are not plain (damaged, CMYK,
12 bits, arithmetic coding) are left to Pillow.
"""
# H W pixels

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from PIL import Image

SIZES = frozenset({0xC0, 0xC1, 0xC2})  # start of frame: baseline, extended, progressive; OpenCV reads no other
OTHER_SIZES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}  # lossless, hierarchical, arithmetic
EXIF, METADATA = 0xE1, frozenset({0xFE, *range(0xE1, 0xEE), 0xEF})  # no influence on pixels except the orientation
SCAN, END = 0xDA, b"\xff\xd9"
SIDEWAYS = range(5, 9)  # EXIF orientations that exchange height and width


@dataclass(frozen=True)
class Header:
    """The header of a plain, complete JPEG file: `shape` (H, W) after the orientation is applied, 1 or 3 channels.

    `scan` is the offset of the first scan; `marks` are the (offset, end) of the segments that pixels depend on.
    """

    shape: tuple[int, int]
    channels: int
    orientation: int
    scan: int
    marks: tuple[tuple[int, int], ...]


def read_header(data: bytes) -> Header | None:
    """Return the file's header; None unless it is a complete 8-bit JPEG file, grey or with three channels."""
    if data[:2] != b"\xff\xd8":
        return None
    at, frame, orientation, marks = 2, None, 1, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in OTHER_SIZES or end > len(data):
            return None
        if marker in SIZES:
            if frame is not None or end < at + 10:
                return None  # two sizes, or a short segment: left to the decoder
            frame = data[at + 4 : end]
        elif marker == EXIF and data.startswith(b"Exif\0", at + 4):
            orientation = _orientation(data[at + 4 : end])
        if marker not in METADATA:
            marks.append((at, end))
        at = end
        if marker == SCAN:
            break
    else:
        return None  # other bytes between the segments: left to the decoder
    if frame is None or frame[0] != 8 or frame[5] not in (1, 3):
        return None
    if data.rfind(END, at) == -1:  # searched from the end of the file, where it is
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if not height or not width:
        return None
    shape = (width, height) if orientation in SIDEWAYS else (height, width)
    return Header(shape, frame[5], orientation, at, tuple(marks))


def content(data: bytes, header: Header) -> int:
    """Return a 64-bit hash of the parts that the pixels depend on: equal for copies that differ only in metadata.

    It hashes the encoded image, because decoding takes much longer and gives different pixels at each scale.
    """
    digest = hashlib.blake2b(f"JPEG {header.orientation}".encode(), digest_size=8)
    view = memoryview(data)
    for start, end in header.marks:
        digest.update(view[start:end])
    digest.update(view[header.scan : data.rfind(END) + len(END)])
    return int.from_bytes(digest.digest(), "little")


def _orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        found = exif.get(0x0112, 1)
    except Exception:  # the parser raises many types for damaged EXIF data; the image is then not rotated
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1

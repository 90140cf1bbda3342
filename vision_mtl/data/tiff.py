"""Reads the TIFF files that image libraries misread: any number of bands, any integers and floats, inverted grey.

Pillow parses the tags, and its libtiff undoes the compression: a plane is handed to it as an 8-bit grey image with the
same strips or tiles, so that its bytes come out unchanged whatever they mean. Predictors, bytes and bands are put in
order here. Other TIFF files (palettes, CMYK, YCbCr, JPEG or fax compression, fewer than 8 bits) are read by Pillow.
TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, and Adobe's technical notes 1 to 3.
"""
# H W pixels, S samples of a pixel in the file, C channels, h w pixels rounded up to whole tiles

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from vision_mtl.data.depth import Raw

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
RAW, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTANDARD = 1, 5, 8, 32773, 32946, 34925, 50000
OF_BYTES = (RAW, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTANDARD)  # compressions without a meaning of the bytes
PREDICTED = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTANDARD)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
FORMATS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat: unsigned, signed, float, undefined
PREMULTIPLIED, ALPHAS = 1, (1, 2, 999)  # ExtraSamples; 999: Corel Draw
REDUCED_OR_MASK = 1 | 4  # bits of NewSubfileType
SIDEWAYS = range(5, 9)  # orientations that exchange height and width


class UnsupportedTiff(ValueError):
    """A TIFF file of a form that is not read; the text names it."""


@dataclass(frozen=True)
class Page:
    """The image of a TIFF file: its bytes, tags and number among the pages."""

    data: bytes
    tags: ImageFileDirectory_v2
    number: int

    def one(self, tag: int, default: int) -> int:
        """Return a tag's only or first number."""
        value = self.tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    def many(self, tag: int) -> tuple[int, ...]:
        """Return a tag's numbers, () without the tag."""
        value = self.tags.get(tag, ())
        return tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value),)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) as stored."""
        return self.one(257, 0), self.one(256, 0)

    @property
    def byte_order(self) -> str:
        """NumPy's character for the file's byte order."""
        return ">" if self.data[:2] == b"MM" else "<"

    @property
    def orientation(self) -> int:
        """The EXIF orientation."""
        return self.one(274, 1)

    @cached_property
    def samples(self) -> int:
        """S, at least 1."""
        return self.one(277, 1)

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits of each sample, without repetition."""
        return tuple(sorted(set(self.many(258) or (1,))))

    @property
    def formats(self) -> tuple[int, ...]:
        """The SampleFormat of each sample, without repetition."""
        return tuple(sorted(set(self.many(339) or (1,))))

    @property
    def photometric(self) -> int:
        """The PhotometricInterpretation; -1 without one."""
        return self.one(262, -1)

    @property
    def compression(self) -> int:
        """The Compression."""
        return self.one(259, RAW)

    @property
    def is_plain(self) -> bool:
        """True if this module reads the page, False if it is left to Pillow."""
        return (
            self.compression in OF_BYTES
            and self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)
            and self.bits in ((8,), (16,), (32,), (64,))
            and len(self.formats) == 1
            and (self.formats[0] in (1, 2, 4) or (self.formats[0] == 3 and self.bits != (8,)))
        )

    def __str__(self) -> str:
        bits, formats = (", ".join(map(str, found)) for found in (self.bits, self.formats))
        return (
            f"a TIFF file with {self.samples} samples of {bits} bits, SampleFormat {formats}, "
            f"PhotometricInterpretation {self.photometric} and Compression {self.compression}"
        )


def open_page(data: bytes) -> Page:
    """Return the only page of a TIFF file; thumbnails and masks do not count.

    Raises `UnsupportedTiff` for several pages, `ValueError` and other errors for a damaged file.
    """
    big = b"+" in data[2:4]
    header, order = (b"II+\0" + data[4:16], data[:2]) if big else (data[:8], None)  # Pillow accepts no "MM\0+"
    tags = ImageFileDirectory_v2(header, prefix=order)
    file, found, seen = io.BytesIO(data), list[Page](), set[int]()
    at = tags.next
    while at and at not in seen and at < len(data):
        seen.add(at)
        file.seek(at)
        tags = ImageFileDirectory_v2(header, prefix=order)
        tags.load(file)
        found.append(Page(data, tags, len(found)))
        at = tags.next
    pages = [page for page in found if not page.one(254, 0) & REDUCED_OR_MASK] or found[:1]
    if not pages:
        raise ValueError("it has no page")
    if len(pages) > 1:
        raise UnsupportedTiff(
            f"it holds {len(pages)} pages, and one image is read from a file: save each page as a file, or bands as "
            "the samples of one page"
        )
    return pages[0]


def by_pillow(page: Page) -> TiffImageFile:
    """Return a page that is not plain as Pillow opens it. Raises `UnsupportedTiff` for more than 8 bits."""
    refused = UnsupportedTiff(f"{page} is not supported; save it with 8, 16 or 32 bits, as grey or RGB")
    if page.bits not in ((1,), (2,), (4,), (8,), (12,)) or not set(page.formats) <= {1, 4} or page.samples > 6:
        raise refused
    try:
        image = TiffImageFile(io.BytesIO(page.data))
        image.seek(page.number)
    except Exception as error:  # of many types
        raise refused from error
    return image


def read(page: Page) -> Raw:
    """Return the numbers of a plain page (H, W, C), upright and without alpha; 8-bit ones are full scale at 255.

    Raises `ValueError` for a damaged or inconsistent file.
    """
    contiguous = page.one(284, 1) == 1 or page.samples == 1
    planes = _planes(page, 1 if contiguous else page.samples, page.samples if contiguous else 1)
    values = planes[0] if contiguous else np.concatenate(planes, axis=2)  # (H, W, S)
    if page.photometric == WHITE_IS_ZERO:
        if values.dtype.kind != "u":
            raise UnsupportedTiff(f"{page}: white is zero, and {values.dtype} values have no maximum to invert from")
        values = np.iinfo(values.dtype).max - values
    values = np.ascontiguousarray(upright(_without_alpha(page, values), page.orientation))
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        raise ValueError("none of its values is a finite number")
    return Raw(values, 255 if values.dtype == np.uint8 else None)


def _planes(page: Page, count: int, samples: int) -> list[np.ndarray]:
    """Return `count` planes (H, W, samples) of the page."""
    (height, width), (bits,) = page.shape, page.bits
    tile = (page.one(323, 0), page.one(322, 0)) if page.tags.get(324) is not None else None
    rows, columns = tile or (min(page.one(278, height), height) or height, width)
    if not (height and width and rows and columns) or page.samples < 1:
        raise ValueError("it has no pixel")
    dtype = np.dtype(f"{page.byte_order}{FORMATS[page.formats[0]]}{bits // 8}")
    segments = _segments(page, *((324, 325) if tile else (273, 279)))
    across, down = -(-width // columns), -(-height // rows)
    if len(segments) != count * across * down:
        raise ValueError(f"it has {len(segments)} strips or tiles, and needs {count * across * down}")
    found = []
    for plane in range(count):
        own = segments[plane * across * down : (plane + 1) * across * down]
        shape = (down * rows if tile else height, across * columns * samples * dtype.itemsize)
        lines = _decompressed(page, own, shape, (rows, columns * samples * dtype.itemsize), tile is not None)
        lines = lines.reshape(shape[0], across, columns * samples * dtype.itemsize)
        values = _without_predictor(lines, page, dtype, samples).reshape(shape[0], across * columns, samples)
        found.append(values[:height, :width])
    return found


def _segments(page: Page, offsets: int, counts: int) -> list[bytes]:
    """Return the compressed bytes of all strips or tiles, by the tags of their offsets and byte counts."""
    starts, sizes = page.many(offsets), page.many(counts)
    if not sizes and len(starts) == 1:  # a single strip may leave out its size
        sizes = (len(page.data) - starts[0],)
    if not starts or len(starts) != len(sizes):
        raise ValueError(f"it has {len(starts)} offsets and {len(sizes)} sizes of strips or tiles")
    for start, size in zip(starts, sizes, strict=True):
        if start <= 0 or size <= 0 or start + size > len(page.data):
            raise ValueError("a strip or tile lies beyond its end")
    return [page.data[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _decompressed(
    page: Page, segments: Sequence[bytes], shape: tuple[int, int], block: tuple[int, int], is_tiled: bool
) -> np.ndarray:
    """Return the bytes (rows, bytes of a row) of a plane: of libtiff, which is given it as an 8-bit grey image."""
    if page.compression == RAW and not is_tiled and page.one(266, 1) == 1:
        joined = np.frombuffer(b"".join(segments), np.uint8)
        if joined.size < shape[0] * shape[1]:
            raise ValueError(f"it holds {joined.size} of {shape[0] * shape[1]} bytes")
        return joined[: shape[0] * shape[1]].reshape(shape)
    starts = np.cumsum([8, *(len(segment) for segment in segments)])
    tags: dict[int, Any] = {
        256: shape[1],
        257: shape[0],
        258: 8,
        259: page.compression,
        262: BLACK_IS_ZERO,
        266: page.one(266, 1),
    }
    tags |= {322: block[1], 323: block[0]} if is_tiled else {278: block[0]}
    tags |= {277: 1, 324 if is_tiled else 273: starts[:-1], 325 if is_tiled else 279: [len(s) for s in segments]}
    directory = _directory(tags, int(starts[-1]))
    file = b"II*\0" + struct.pack("<I", int(starts[-1])) + b"".join(segments) + directory
    return np.asarray(TiffImageFile(io.BytesIO(file)))


def _directory(tags: Mapping[int, Any], offset: int) -> bytes:
    """Return a little-endian directory of 32-bit tags, placed at `offset` of a file, with the values after it."""
    entries, values = [], b""
    end = offset + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        packed = np.atleast_1d(value).astype("<u4").tobytes()
        entries.append(struct.pack("<HHI", tag, 4, len(packed) // 4))
        entries.append(packed if len(packed) == 4 else struct.pack("<I", end + len(values)))
        values += b"" if len(packed) == 4 else packed
    return struct.pack("<H", len(tags)) + b"".join(entries) + b"\0\0\0\0" + values


def _without_predictor(lines: np.ndarray, page: Page, dtype: np.dtype, samples: int) -> np.ndarray:
    """Return values (rows, tiles across, values of a tile's row) from bytes; native byte order."""
    predictor, native = page.one(317, 1), dtype.newbyteorder("=")
    lines = np.ascontiguousarray(lines)
    if predictor == 1:
        return lines.view(dtype).astype(native, copy=False)
    if predictor not in (2, 3) or page.compression not in PREDICTED or (predictor == 3 and dtype.kind != "f"):
        raise UnsupportedTiff(f"{page} with Predictor {predictor} is not supported")
    rows, across, _ = lines.shape
    if predictor == 2:  # differences of neighbouring pixels, which wrap around
        unsigned = np.dtype(f"u{dtype.itemsize}")
        differences = lines.view(np.dtype(f"{page.byte_order}u{dtype.itemsize}"))
        pixels = differences.astype(unsigned).reshape(rows, across, -1, samples)
        return np.cumsum(pixels, axis=2, dtype=unsigned).reshape(rows, across, -1).view(native)
    summed = np.cumsum(lines.reshape(rows, across, -1, samples), axis=2, dtype=np.uint8)
    by_byte = summed.reshape(rows, across, dtype.itemsize, -1)  # the first bytes of all values, then the second ones
    floats = np.ascontiguousarray(np.moveaxis(by_byte, 2, 3)).view(native.newbyteorder(">"))
    return floats[..., 0].astype(native)


def _without_alpha(page: Page, values: np.ndarray) -> np.ndarray:
    """Return values (H, W, C) without alpha; colours that were multiplied by it are divided by it.

    Further samples without a stated meaning are bands; a fourth sample after RGB of which no tag tells is alpha.
    """
    colours, extra = 3 if page.photometric == RGB else 1, page.many(338)
    if len(extra) > page.samples - colours or page.samples < colours:
        raise ValueError(f"it has {page.samples} samples, {colours} for colours and {len(extra)} extra ones")
    if not extra and page.photometric == RGB and page.samples == 4:
        extra = (2,)
    first = page.samples - len(extra)
    alphas = [first + i for i, kind in enumerate(extra) if kind in ALPHAS]
    if not alphas:
        return values
    kept = [i for i in range(page.samples) if i not in alphas]
    found = values[..., kept]
    if PREMULTIPLIED in extra:
        full = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
        alpha = values[..., [first + extra.index(PREMULTIPLIED)]].astype(np.float64)
        divided = np.divide(found * full, alpha, out=found.astype(np.float64), where=alpha > 0)
        found = (divided if values.dtype.kind == "f" else np.clip(divided, 0, full)).astype(values.dtype)
    return found


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image (H, W, C) turned and mirrored by its EXIF orientation, 1 to 8; others are ignored."""
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image

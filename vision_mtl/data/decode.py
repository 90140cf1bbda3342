"""Decodes image files into uint8 arrays: with OpenCV for speed, with Pillow where OpenCV would guess.

OpenCV silently fills the missing part of a truncated file with grey, so files without an end mark go to Pillow, which
refuses them. Alpha is dropped (as by torchvision and Pillow's `convert("RGB")`), 16 bits are rounded to 8, palettes
become colours, CMYK is converted, and the EXIF orientation is applied.

A JPEG file that is resized to half its size or less is decoded at 1/2, 1/4 or 1/8 of its size, from the low
frequencies of its blocks (libjpeg's scaled inverse DCT); area averaging does the rest, as for all other files.
"""
# H W pixels, C channels: 1 (grey) or 3 (RGB)

from __future__ import annotations

import errno
import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import TOO_MANY, too_many_files
from vision_mtl.data import jpeg
from vision_mtl.data.resize import Fit, reduction, resize, to_channels

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".avif",
    }
)  # other files are ignored
# formats that these files may have, independent of their suffix: Pillow would pass an EPS file to Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 250_000_000  # larger images are refused by their header: decoding would take a gigabyte
MAX_FILE_BYTES = 1 << 30  # larger files are refused by their size: no image within MAX_PIXELS needs it
GONE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV)  # disk or server lost
DIRECT_FORMATS = frozenset({"WEBP", "BMP", "PPM"})  # for 8-bit L or RGB, OpenCV reads the same as Pillow
TURNS = (b"eXIf", b"tEXtRaw profile", b"zTXtRaw profile", b"iTXtXML:com.adobe")  # PNG chunks with an orientation
DEEP_FORMATS = frozenset({"PNG", "TIFF", "PPM"})  # may have 16 bits, which Pillow truncates

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is the limit
REDUCED = {  # flags by scale
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # UnreadableImage reports damaged files


class UnreadableImage(Exception):
    """A file that is not an image or is damaged: `path` (or the identity of an item without one) and `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


def decode_file(path: Path) -> np.ndarray:
    """Decode an image file to (H, W, C) uint8. Raises `UnreadableImage`."""
    return decode_bytes(file_bytes(path), path)


def file_bytes(path: Path) -> bytes:
    """Return the bytes of an image file, at most `MAX_FILE_BYTES` + 1.

    Raises `UnreadableImage`, or `UserError` where the machine and not the file is at fault.
    """
    try:
        return read_at_most(path, 0, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise read_error(path, error) from error


def read_at_most(path: Path, offset: int, count: int) -> bytes:
    """Return up to `count` bytes from `offset`; a `count` beyond the file's end takes no memory."""
    with path.open("rb") as file:
        end = min(offset + count, os.fstat(file.fileno()).st_size)  # 0 for a device, so an endless one reads as empty
        file.seek(offset)
        return file.read(max(end - offset, 0))


def read_error(path: Path | str, error: OSError) -> Exception:
    """Return the error for a failed read: `UnreadableImage` for a fault of the file, `UserError` for the machine."""
    if error.errno in TOO_MANY:
        return too_many_files(path)
    if error.errno in GONE:
        return UserError(
            f"the disk or server of {str(path)!r} is not available any more: {error.strerror}. Images decoded so far "
            "are kept; run the same command again when it is available."
        )
    return UnreadableImage(path, error.strerror or str(error))


def decode_bytes(data: bytes, name: Path | str, max_pixels: int | None = None) -> np.ndarray:
    """Decode an image of at most `max_pixels` (None: `MAX_PIXELS`) to (H, W, C) uint8.

    Raises `UnreadableImage` with `name`.
    """
    return decode_at_scale(data, name, jpeg.read_header(data), 1, max_pixels)


def decode_fitted(
    data: bytes, name: Path | str, size: tuple[int, int], channels: int, fit: Fit
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode and resize an image: returns ((*size, channels) uint8, (height, width) of the original image).

    Raises `UnreadableImage`, and `UserError` as `to_channels` does.
    """
    header = jpeg.read_header(data)
    scale = 1 if header is None else reduction(header.shape, size, fit)
    image = decode_at_scale(data, name, header, scale)
    shape = (image.shape[0], image.shape[1]) if header is None or scale == 1 else header.shape
    return to_channels(resize(image, size, fit, of=shape), channels), shape


def decode_at_scale(
    data: bytes, name: Path | str, header: jpeg.Header | None, scale: int, max_pixels: int | None = None
) -> np.ndarray:
    """Decode an image to (H, W, C) uint8; a plain JPEG file with its `header` at 1 / `scale` of its size, rounded up.

    `scale` is 1, 2, 4 or 8. Raises `UnreadableImage`.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"the file has more than {MAX_FILE_BYTES:,} bytes")
    most = MAX_PIXELS if max_pixels is None else max_pixels
    try:
        if header is not None:
            check_size(name, *header.shape, most)
            image = _decode_jpeg(data, header, scale)
            if image is not None:
                return image
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            check_size(name, opened.height, opened.width, most)
            return _decode(data, opened)
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, "not an image in any supported format") from error
    except Exception as error:  # decoders raise many types for damaged bytes: AVIF's raises RuntimeError
        raise UnreadableImage(name, f"damaged: {error}") from error


def check_size(name: Path | str, height: int, width: int, most: int) -> None:
    """Raise `UnreadableImage` for an image of more than `most` pixels."""
    if width * height > most:
        raise UnreadableImage(name, f"{width} x {height} pixels exceed {most:,}")


def _decode_jpeg(data: bytes, header: jpeg.Header, scale: int) -> np.ndarray | None:
    """Decode with OpenCV; None if it cannot read the file."""
    flags = REDUCED[scale] | (cv2.IMREAD_GRAYSCALE if header.channels == 1 else cv2.IMREAD_COLOR_RGB)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # applies the EXIF orientation
    return image[..., None] if image is not None and image.ndim == 2 else image


def _decode(data: bytes, header: Image.Image) -> np.ndarray:
    whole = header.format != "PNG" or data.rfind(b"IEND") != -1  # Pillow decides on a truncated PNG file
    deep = header.mode.startswith("I") or (header.format in DEEP_FORMATS and header.mode in ("RGB", "RGBA", "LA"))
    plain = header.mode in ("L", "RGB") and (
        _is_plain_png(data) and whole if header.format == "PNG" else header.format in DIRECT_FORMATS and not deep
    )
    if plain:
        flags = cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return image[..., None] if image.ndim == 2 else image
    if whole and deep and not plain:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is not None and image.dtype in (np.uint8, np.uint16):
            pixels = _colour_order(_eight_bits(image), grey=header.mode == "LA")
            return pixels if header.format == "TIFF" else _oriented(pixels, header)  # OpenCV turns TIFF files itself
    return pixels_of(header)


def _is_plain_png(data: bytes) -> bool:
    """Return True for a PNG file with 8 bits and no orientation; Pillow would decode the whole file to find one."""
    if data[12:16] != b"IHDR" or data[24] != 8:
        return False
    at = 8
    while at + 8 <= len(data):
        if data.startswith(TURNS, at + 4):
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return True


def pixels_of(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image of any mode to (H, W, 1 or 3). Raises `OSError` for a truncated file."""
    image.load()
    if image.mode.startswith(("I", "F")):
        return _oriented(_eight_bits(np.asarray(image)), image)
    grey = image.mode in ("1", "L", "LA")
    upright = ImageOps.exif_transpose(image.convert("L" if grey else "RGB"))
    pixels = np.asarray(upright)
    return pixels[..., None] if grey else pixels


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """Convert to 8 bits: 16-bit integers are rounded; floats and 32-bit integers are scaled from their range."""
    if image.dtype == np.uint8:
        return image
    values = image.astype(np.float64)
    if image.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535:
        return np.round(values / 257).astype(np.uint8)
    low, high = np.nanmin(values), np.nanmax(values)
    return np.nan_to_num((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)


def _colour_order(image: np.ndarray, grey: bool) -> np.ndarray:
    """Convert OpenCV's (H, W), BGR or BGRA to (H, W, 1) or RGB; OpenCV gives grey with alpha as BGRA."""
    if image.ndim == 2:
        return image[..., None]
    if grey:
        return np.ascontiguousarray(image[..., :1])
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _oriented(image: np.ndarray, header: Image.Image) -> np.ndarray:
    """Apply the EXIF orientation, with Pillow's table of transpositions."""
    image = image[..., None] if image.ndim == 2 else image
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(header.getexif().get(0x0112, 1))  # Image.Transpose values
    if turn is None:
        return image
    planes = [Image.fromarray(image[..., c]).transpose(Image.Transpose(turn)) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)

"""Image files into uint8 arrays: OpenCV for speed, Pillow wherever OpenCV would guess.

OpenCV fills the missing part of a truncated file with grey and says nothing, so a file without its end mark goes to
Pillow, which refuses it. Alpha is dropped (as torchvision and Pillow's `convert("RGB")` do), 16 bits are rounded to 8,
palettes are looked up, CMYK is converted, and the EXIF orientation is applied.

A JPEG file that is to shrink to half its size or less is decoded at 1/2, 1/4 or 1/8 of it, from the low frequencies of
its blocks (libjpeg's scaled inverse DCT), and the rest of the way is an area average, as it is for every other file.
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
)  # files that are meant to be images; any other file is passed over
# what a file of those names may be, whatever its name says: Pillow would hand an EPS file to Ghostscript, a program
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 250_000_000  # a larger picture is refused from its header alone: it would take a gigabyte to decode
MAX_FILE_BYTES = 1 << 30  # a larger file is refused by its size: no picture of so many pixels needs it
GONE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV)  # a disk or server
DIRECT_FORMATS = frozenset({"WEBP", "BMP", "PPM"})  # 8-bit L or RGB in these: OpenCV reads what Pillow would
TURNS = (b"eXIf", b"tEXtRaw profile", b"zTXtRaw profile", b"iTXtXML:com.adobe")  # chunks of PNG files that may turn it
DEEP_FORMATS = frozenset({"PNG", "TIFF", "PPM"})  # may hold 16 bits, which Pillow truncates

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is our own rule
REDUCED = {  # flags by scale
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a damaged file is named by us, once


class UnreadableImage(Exception):
    """A file that is no image, or only part of one. `path` names it (or an item without one), `reason` says why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


def decode_file(path: Path) -> np.ndarray:
    """(H, W, C) uint8. Raises `UnreadableImage`."""
    return decode_bytes(file_bytes(path), path)


def file_bytes(path: Path) -> bytes:
    """An image file as it is, cut off where it is too long to be one. Raises `UnreadableImage`, or a `UserError` where
    not the file but the machine is at fault."""
    try:
        return read_at_most(path, 0, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise unless_unreadable(path, error) from error


def read_at_most(path: Path, offset: int, count: int) -> bytes:
    """`count` bytes from `offset` on, fewer at the file's end; what is asked for beyond it takes no memory."""
    with path.open("rb") as file:
        end = min(offset + count, os.fstat(file.fileno()).st_size)  # a device has 0: it is empty, and not endless
        file.seek(offset)
        return file.read(max(end - offset, 0))


def unless_unreadable(path: Path | str, error: OSError) -> Exception:
    """What a failed read means: a fault of this one file, or of the machine, which says nothing of the file."""
    if error.errno in TOO_MANY:
        return too_many_files(path)
    if error.errno in GONE:
        return UserError(
            f"the place of {str(path)!r} has vanished while it was read: {error.strerror}. What was decoded before is "
            "not lost; run the same command again when it is back."
        )
    return UnreadableImage(path, error.strerror or str(error))


def decode_bytes(data: bytes, name: Path | str, max_pixels: int | None = None) -> np.ndarray:
    """An encoded image of at most `max_pixels` (None: `MAX_PIXELS`) -> (H, W, C) uint8; `name` stands in the error.

    Raises `UnreadableImage`.
    """
    return decode_at_scale(data, name, jpeg.read_header(data), 1, max_pixels)


def decode_fitted(
    data: bytes, name: Path | str, size: tuple[int, int], channels: int, fit: Fit
) -> tuple[np.ndarray, tuple[int, int]]:
    """An encoded image -> ((*size, channels) uint8, the (height, width) of the whole image).

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
    """As `decode_bytes`, (H, W, C); with the `header` of a plain JPEG file at 1 / `scale` of its size, rounded up.

    A scale is 1, 2, 4 or 8.

    Raises `UnreadableImage`.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableImage(name, f"more than {MAX_FILE_BYTES:,} bytes are no picture")
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
        raise UnreadableImage(name, "not an image, whatever its name says") from error
    except Exception as error:  # damaged bytes find every way out of a decoder: AVIF's is RuntimeError
        raise UnreadableImage(name, f"damaged: {error}") from error


def check_size(name: Path | str, height: int, width: int, most: int) -> None:
    """Raises `UnreadableImage` for an image of more than `most` pixels."""
    if width * height > most:
        raise UnreadableImage(name, f"{width} x {height} pixels exceed {most:,}")


def _decode_jpeg(data: bytes, header: jpeg.Header, scale: int) -> np.ndarray | None:
    """None if OpenCV cannot read it."""
    flags = REDUCED[scale] | (cv2.IMREAD_GRAYSCALE if header.channels == 1 else cv2.IMREAD_COLOR_RGB)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # applies the EXIF orientation
    return image[..., None] if image is not None and image.ndim == 2 else image


def _decode(data: bytes, header: Image.Image) -> np.ndarray:
    whole = header.format != "PNG" or data.rfind(b"IEND") != -1  # Pillow decides on a PNG file without its end
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
    """Whether a PNG file has 8 bits and says nothing of an orientation, which Pillow decodes all of it to find."""
    if data[12:16] != b"IHDR" or data[24] != 8:
        return False
    at = 8
    while at + 8 <= len(data):
        if data.startswith(TURNS, at + 4):
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return True


def pixels_of(image: Image.Image) -> np.ndarray:
    """Any mode that Pillow knows -> (H, W, 1 or 3); raises `OSError` for a truncated file."""
    image.load()
    if image.mode.startswith(("I", "F")):
        return _oriented(_eight_bits(np.asarray(image)), image)
    grey = image.mode in ("1", "L", "LA")
    upright = ImageOps.exif_transpose(image.convert("L" if grey else "RGB"))
    pixels = np.asarray(upright)
    return pixels[..., None] if grey else pixels


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """Integers of 16 bits -> 8, rounded; floats and 32-bit integers are stretched from their own range."""
    if image.dtype == np.uint8:
        return image
    values = image.astype(np.float64)
    if image.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535:
        return np.round(values / 257).astype(np.uint8)
    low, high = np.nanmin(values), np.nanmax(values)
    return np.nan_to_num((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)


def _colour_order(image: np.ndarray, grey: bool) -> np.ndarray:
    """OpenCV's (H, W), BGR or BGRA -> (H, W, 1) or RGB; it gives grey with alpha as BGRA."""
    if image.ndim == 2:
        return image[..., None]
    if grey:
        return np.ascontiguousarray(image[..., :1])
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _oriented(image: np.ndarray, header: Image.Image) -> np.ndarray:
    """Apply the EXIF orientation, by Pillow's own table of turns."""
    image = image[..., None] if image.ndim == 2 else image
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(header.getexif().get(0x0112, 1))  # -> Transpose members
    if turn is None:
        return image
    planes = [Image.fromarray(image[..., c]).transpose(Image.Transpose(turn)) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)

"""Decodes image files into their own numbers: with OpenCV for speed, with Pillow where OpenCV would guess.

OpenCV silently fills the missing part of a truncated file with grey, so files without an end mark go to Pillow, which
refuses them. Alpha is dropped (as by torchvision and Pillow's `convert("RGB")`), palettes become colours, CMYK is
converted, and the EXIF orientation is applied. Deep images keep their integers or floats (`depth.py` scales them). Of
an animation the first picture is read. What cannot be read exactly is refused by name.

A JPEG file that is resized to half its size or less is decoded at 1/2, 1/4 or 1/8 of its size, from the low
frequencies of its blocks (libjpeg's scaled inverse DCT); area averaging does the rest, as for all other files.
"""
# H W pixels, C channels: 1 (grey), 3 (RGB) or the bands of a TIFF file

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
from vision_mtl.data import jpeg, pnm, tiff
from vision_mtl.data.depth import Raw, Scale, to_levels
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
ORIENTATION = 0x0112  # EXIF tag
MAX_PIXELS = 250_000_000  # larger images are refused by their header: decoding would take a gigabyte
MAX_FILE_BYTES = 1 << 30  # larger files are refused by their size: no image within MAX_PIXELS needs it
GONE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV)  # disk or server lost
DIRECT_FORMATS = frozenset({"WEBP", "BMP", "PPM"})  # for 8-bit L or RGB, OpenCV reads the same as Pillow
BMP_BITS = (8, 24, 32)  # of a pixel: OpenCV does not scale the 5 bits of a colour in a BMP file of 16 bits
TURNS = (b"eXIf", b"tEXtRaw profile", b"zTXtRaw profile", b"iTXtXML:com.adobe")  # PNG chunks with an orientation
GREY_MODES = ("1", "L", "LA", "La")  # Pillow's modes, and those that it converts to RGB
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
PNG_DEPTH, PNG_GREY = 24, (0, 4)  # offset of the bits of a PNG file's sample; colour types without colours
JPEG2000_SIZE = b"\xff\x4f\xff\x51"  # markers at the beginning of a JPEG 2000 codestream

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
    """Decode an image file to its own numbers (H, W, C). Raises `UnreadableImage`."""
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
    """Decode an image of at most `max_pixels` (None: `MAX_PIXELS`) to its own numbers (H, W, C).

    Raises `UnreadableImage` with `name`.
    """
    return decode_raw(data, name, max_pixels).values


def decode_raw(data: bytes, name: Path | str, max_pixels: int | None = None) -> Raw:
    """Decode an image as `decode_bytes` does, with the number that means full scale if the file declares one."""
    return decode_at_scale(data, name, jpeg.read_header(data), 1, max_pixels)


def decode_fitted(
    data: bytes,
    name: Path | str,
    size: tuple[int, int],
    channels: int,
    fit: Fit,
    value_range: Scale = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode and resize an image: returns (pixels (*size, channels), (height, width) of the original image).

    The pixels have 8 bits if the file has, else 16-bit levels of `value_range`. Raises `UnreadableImage`; `DeepImage`
    if the range is missing; `UserError` as `to_channels` does.
    """
    header = jpeg.read_header(data)
    scale = 1 if header is None else reduction(header.shape, size, fit)
    image = to_levels(decode_at_scale(data, name, header, scale), value_range, name)
    shape = (image.shape[0], image.shape[1]) if header is None or scale == 1 else header.shape
    return to_channels(resize(image, size, fit, of=shape), channels, name), shape


def decode_at_scale(
    data: bytes, name: Path | str, header: jpeg.Header | None, scale: int, max_pixels: int | None = None
) -> Raw:
    """Decode an image to its own numbers; a plain JPEG file with its `header` at 1 / `scale` of its size, rounded up.

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
                return Raw(image, 255)
        if data[:4] in tiff.MAGIC:
            return _decode_tiff(data, name, most)
        if size := pnm.read_header(data):
            check_size(name, *size, most)
            return pnm.read(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            check_size(name, opened.height, opened.width, most)
            return _decode(data, opened)
    except (UnreadableImage, MemoryError):
        raise
    except tiff.UnsupportedTiff as error:
        raise UnreadableImage(name, str(error)) from error
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


def _decode_tiff(data: bytes, name: Path | str, most: int) -> Raw:
    page = tiff.open_page(data)
    check_size(name, *page.shape, most)
    if page.is_plain:
        return tiff.read(page)
    image = tiff.by_pillow(page)
    values = pixels_of(image)
    return Raw(values, 255 if values.dtype == np.uint8 else (1 << page.bits[0]) - 1)  # 12 bits are the only deep ones


def _decode(data: bytes, header: Image.Image) -> Raw:
    is_png = header.format == "PNG"
    whole = not is_png or data.rfind(b"IEND") != -1  # Pillow decides on a truncated PNG file
    plain = header.mode in ("L", "RGB") and (
        _is_plain_png(data) and whole if is_png else header.format in DIRECT_FORMATS and _is_common(header, data)
    )
    if plain:
        flags = cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return Raw(image[..., None] if image.ndim == 2 else image, 255)
    if is_png and data[PNG_DEPTH] == 16:
        return _decode_deep_png(data, header)
    if header.format == "JPEG2000":
        _check_jpeg2000(data)
    pixels = pixels_of(header)
    return Raw(pixels, 255 if pixels.dtype == np.uint8 else None)


def _is_common(header: Image.Image, data: bytes) -> bool:
    return header.format != "BMP" or int.from_bytes(data[28:30], "little") in BMP_BITS


def _decode_deep_png(data: bytes, header: Image.Image) -> Raw:
    """Decode a PNG file of 16 bits with OpenCV: Pillow keeps 8 bits of colours."""
    if data.rfind(b"IEND") == -1:
        header.load()  # raises for a truncated file
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        raise OSError("OpenCV cannot read it")
    colours = _colour_order(image, grey=data[PNG_DEPTH + 1] in PNG_GREY)
    return Raw(np.ascontiguousarray(tiff.upright(colours, _orientation(header))), None)


def _check_jpeg2000(data: bytes) -> None:
    """Raise `OSError` for a JPEG 2000 file of more than 8 bits that Pillow rounds or shifts: colours, 9 to 15 bits."""
    at = data.find(JPEG2000_SIZE)
    if at == -1:
        return
    count = int.from_bytes(data[at + 40 : at + 42], "big")
    depths = {data[at + 42 + 3 * i] for i in range(count)}  # bits - 1, and 128 for signed numbers
    if depths != {7} and not (count == 1 and depths == {15}):
        bits = ", ".join(f"{depth % 128 + 1}{' signed' if depth > 127 else ''}" for depth in sorted(depths))
        raise OSError(f"JPEG 2000 with {count} samples of {bits} bits is not supported; save it as TIFF")


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
    """Convert a Pillow image to (H, W, 1 or 3): its own numbers for modes I and F, else 8 bits.

    Raises `OSError` for a truncated file and an unknown mode.
    """
    image.load()
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)[..., None]
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return np.ascontiguousarray(tiff.upright(values, _orientation(image)))
    grey = image.mode in GREY_MODES
    if not grey and image.mode not in COLOUR_MODES:
        raise OSError(f"images of Pillow's mode {image.mode} are not supported; save it as grey or RGB")
    upright = ImageOps.exif_transpose(image.convert("L" if grey else "RGB"))
    pixels = np.asarray(upright)
    return pixels[..., None] if grey else pixels


def _colour_order(image: np.ndarray, grey: bool) -> np.ndarray:
    """Convert OpenCV's (H, W), BGR or BGRA to (H, W, 1) or RGB; OpenCV gives grey with alpha as BGRA."""
    if image.ndim == 2:
        return image[..., None]
    if grey:
        return np.ascontiguousarray(image[..., :1])
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ORIENTATION, 1)

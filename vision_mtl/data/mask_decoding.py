"""Decodes a mask file into the numbers or colours that are in the file, and counts what hints at a damaged mask.

Pillow scales grey values of fewer than eight bits, and inverts those of which 0 is white; both are undone here, because
the file's own numbers are the classes.
"""
# H W pixels

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from vision_mtl.data.decode import FORMATS, MAX_PIXELS

COLOUR = 1 << 24  # added to 0xRRGGBB, so that colours and numbers differ
GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of one number per pixel
OPAQUE = {"LA": "L", "PA": "P", "RGBA": "RGB"}  # modes with alpha -> the same without
LOSSY = ("JPEG", "MPO")
MOST_VALUES = 256  # in one file: more are a picture, not classes
SHALLOW = {"1": 1, "2": 3, "4": 15}  # bits -> the largest number
EIGHT_BITS, SIXTEEN_BITS = 255, 65535
SQUARE = np.ones((3, 3), np.uint8)
EXACT = 1 << 24  # pixels that OpenCV's histograms, in float32, count exactly


class BadMask(ValueError):
    """A mask that must not be read; the message completes "the mask FILE ..."."""


@dataclass(frozen=True)
class MaskFile:
    """The values (H, W) int32 of a mask, in the picture's orientation, and counts over its pixels by value.

    `patches` are the values that fill a square of 3 x 3 pixels, `between` counts the pixels whose value lies strictly
    between those around it, as along a smoothed edge. `top` is the largest number of a file with fewer than eight bits,
    `palette` the colour of each number, `is_turned` tells whether an orientation tag was applied.
    """

    values: np.ndarray
    counts: Mapping[int, int]
    between: Mapping[int, int]
    patches: frozenset[int]
    top: int | None
    palette: Mapping[int, str]
    is_turned: bool


def decode_mask(file: Path) -> MaskFile:
    """Return a mask file's content. Raises `BadMask` for a file that is none, with the reason and what to do."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_kind(image)
            raw, decoder_top = _raw_mode(image)
            is_turned = image.getexif().get(0x0112, 1) != 1
            palette = _palette(image)
            pixels = np.asarray(ImageOps.exif_transpose(image) if is_turned else image)
            mode = image.mode
    except (BadMask, MemoryError):
        raise
    except Exception as error:  # as in decode.py
        missing = isinstance(error, FileNotFoundError)
        raise BadMask("does not exist." if missing else f"cannot be read ({error}).") from error
    if mode in OPAQUE:
        pixels, mode = _without_alpha(pixels), OPAQUE[mode]
    if mode == "RGB":
        values = COLOUR + pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        return _measured(values, pixels, None, {}, is_turned)
    numbers, top = _own_numbers(pixels, mode, raw, decoder_top)
    return _measured(numbers, numbers, top, palette, is_turned)


def colour_name(value: int) -> str:
    """Return a colour's value as #rrggbb."""
    return f"#{value - COLOUR:06x}"


def _check_kind(image: Image.Image) -> None:
    """Raise `BadMask` for a format or mode whose values are no classes."""
    if image.width * image.height > MAX_PIXELS:
        raise BadMask(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}.")
    if image.format in LOSSY or image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        raise BadMask("is compressed as JPEG, which changes values: save the masks as PNG from where they were drawn.")
    if getattr(image, "n_frames", 1) > 1:
        raise BadMask(f"holds {getattr(image, 'n_frames', 1)} pictures: save one mask in each file.")
    if image.mode not in (*GREY_MODES, "P", "RGB", *OPAQUE):
        raise BadMask(f"is a {image.format} image of mode {image.mode}: save it in grey, with a palette, or as RGB.")


def _raw_mode(image: Image.Image) -> tuple[str, int | None]:
    """Return how a file stores its pixels, in Pillow's words, and the maximum that a PGM file declares."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return image.mode, None
    decoder, _, _, found = tiles[0]
    parts: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    raw = str(parts[0]) if parts and parts[0] else image.mode
    if image.mode not in GREY_MODES and ";16" in raw:
        raise BadMask("has colours of 16 bits: save it with 8 bits, or in grey.")
    return raw, int(parts[1]) if decoder.startswith("ppm") and len(parts) > 1 else None


def _palette(image: Image.Image) -> dict[int, str]:
    """Return the colour of each number of a palette image; {} for others."""
    flat = (image.getpalette("RGB") or []) if image.mode in ("P", "PA") else []
    return {n: "#{:02x}{:02x}{:02x}".format(*flat[3 * n : 3 * n + 3]) for n in range(len(flat) // 3)}


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, 3) from pixels with an opaque alpha channel; raise `BadMask` for a transparent one."""
    if (pixels[..., -1] != EIGHT_BITS).any():
        raise BadMask("has transparent pixels, so it is unclear what their class is: save it without an alpha channel.")
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]


def _own_numbers(pixels: np.ndarray, mode: str, raw: str, declared: int | None) -> tuple[np.ndarray, int | None]:
    """Return the numbers (H, W) int32 as the file stores them, and their maximum if it has fewer than eight bits."""
    if mode == "F" and not (np.isfinite(pixels).all() and (pixels == np.rint(pixels)).all()):
        raise BadMask("holds numbers that are not whole: a mask has one whole number for each class.")
    if pixels.size and (pixels.min() < 0 or pixels.max() >= COLOUR):
        raise BadMask(f"holds {pixels.min() if pixels.min() < 0 else pixels.max()}: numbers must be 0 to {COLOUR - 1}.")
    numbers = pixels.astype(np.int32)
    bits = re.match(r"[1L];?(\d*)I?", raw) if mode in ("1", "L") else None
    top = SHALLOW.get("1" if mode == "1" else bits[1]) if bits else None
    full = 1 if mode == "1" else EIGHT_BITS if mode == "L" else SIXTEEN_BITS
    if declared is not None:
        top = declared
    if top is not None and top != full:
        numbers = np.rint(numbers * (top / full)).astype(np.int32)
    if mode in ("1", "L") and re.search(r";\d*I", raw):
        numbers = (full if top is None else top) - numbers
    return numbers, top if top is not None and top < EIGHT_BITS else None


def _measured(
    values: np.ndarray, pixels: np.ndarray, top: int | None, palette: Mapping[int, str], is_turned: bool
) -> MaskFile:
    """Return the file with its counts. `pixels` (H, W) or (H, W, 3) are what `values` (H, W) were made of."""
    wide: Any = pixels.astype(np.uint8 if pixels.max() <= EIGHT_BITS else np.float32)
    low, high = cv2.erode(wide, SQUARE), cv2.dilate(wide, SQUARE)
    flat, inner = low == high, (low < wide) & (wide < high)
    if pixels.ndim == 3:
        flat, inner = flat.all(2), inner.any(2)
    found, counts, between, patches = _counted(values, wide, inner, flat)
    if len(found) > MOST_VALUES:
        what = "colours" if pixels.ndim == 3 else "values"
        raise BadMask(
            f"holds {len(found):,} {what}, more than {MOST_VALUES}: is it a photograph, or were its edges smoothed? "
            "A mask has one number or colour for each class."
        )
    names = found.tolist()
    return MaskFile(
        values,
        dict(zip(names, counts.tolist(), strict=True)),
        dict(zip(names, between.tolist(), strict=True)),
        frozenset(found[patches > 0].tolist()),
        top,
        {n: palette[n] for n in names if n in palette},
        is_turned,
    )


def _counted(values: np.ndarray, pixels: np.ndarray, *parts: np.ndarray) -> list[np.ndarray]:
    """Return the sorted distinct values (V,), their pixels, and their pixels in each part (H, W) bool."""
    if pixels.ndim == 2 and pixels.dtype == np.uint8 and pixels.size < EXACT:  # four times faster than NumPy
        every = np.ones(pixels.shape, bool)
        masks = [part.view(np.uint8) for part in (every, *parts)]
        counts = [cv2.calcHist([pixels], [0], mask, [256], [0, 256]).ravel().astype(np.int64) for mask in masks]
        found = np.flatnonzero(counts[0])
        return [found, *(count[found] for count in counts)]
    found, numbers = np.unique(values, return_inverse=True)
    numbers = numbers.reshape(values.shape)
    counted = [numbers.ravel(), *(numbers[part] for part in parts)]
    return [found, *(np.bincount(part, minlength=len(found)) for part in counted)]

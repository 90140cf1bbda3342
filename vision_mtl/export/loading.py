"""Write `load_image.py`: from the bytes of an image file to the model's input, without vision_mtl.

The model card quotes the file, and the check after an export runs it, so the three cannot diverge. It does what
`data/decode.py` and `data/resize.py` do: decode in full, apply the orientation of the camera, drop alpha, average over
areas to shrink, interpolate linearly to enlarge, round to 8 bits.
"""
# H W pixels, C channels

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LOAD_IMAGE = "load_image.py"
LoadImage = Callable[[bytes], np.ndarray]

HEAD = '''\
"""Load an image as the model takes it. Needs Pillow, NumPy and OpenCV (opencv-python-headless)."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

HEIGHT, WIDTH = {height}, {width}


def load_image(data{ranged}):
    """Bytes of an image file -> (1, {channels}, HEIGHT, WIDTH) float32 in [0, 1]."""
    opened = Image.open(io.BytesIO(data))
'''
REFUSE_DEEP = """\
    if opened.mode[0] in "IF":
        raise ValueError("the image has more than 8 bits, the model was trained on images of 8 bits")
"""
DECODE = """\
    image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
"""
DECODE_RANGED = """\
    if opened.mode[0] in "IF":  # more than 8 bits: from the range of the training images to 16 bits
        values = np.asarray(ImageOps.exif_transpose(opened), np.float64)
        levels = np.clip((values - low) / (high - low), 0, 1) * 65535
        image = np.repeat(levels.round().astype(np.uint16)[..., None], 3, axis=2)
    else:
        image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(np.uint16) * 257
"""
SHAPE = "    height, width = image.shape[:2]\n"
BEFORE = {  # data.fit -> the part that is resized, and its size
    "stretch": "    rows, columns = HEIGHT, WIDTH\n",
    "crop": """\
    scale = max(HEIGHT / height, WIDTH / width)  # cut the centre to the model's aspect ratio
    height, width = (min(side, max(1, round(asked / scale))) for side, asked in ((height, HEIGHT), (width, WIDTH)))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    image = image[top : top + height, left : left + width]
    rows, columns = HEIGHT, WIDTH
""",
    "pad": """\
    scale = min(HEIGHT / height, WIDTH / width)  # the whole image inside a border of its mean colour
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
""",
}
RESIZE = """\
    image = cv2.resize(image, (min(width, columns), min(height, rows)), interpolation=cv2.INTER_AREA)
    image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
"""
AFTER = {
    "stretch": "",
    "crop": "",
    "pad": """\
    inner, image = image, np.empty((HEIGHT, WIDTH, 3), image.dtype)
    image[:] = inner.mean((0, 1)).round()
    top, left = (HEIGHT - rows) // 2, (WIDTH - columns) // 2
    image[top : top + rows, left : left + columns] = inner
""",
}
GREY = "    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]\n"
REPEAT = "    image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], {channels}, axis=2)\n"
END = "    return image.transpose(2, 0, 1)[None].astype(np.float32) / {most}\n"


def loading_code(about: Mapping[str, Any]) -> str:
    """Return the text of `load_image.py` for the metadata of an export."""
    (height, width), channels, fit = about["image_size"], about["channels"], about["fit"]
    ranges = about.get("value_ranges") or {}
    low, high = next(((found["low"], found["high"]) for found in ranges.values()), (0.0, 0.0))
    ranged = f", low={float(low)!r}, high={float(high)!r}" if ranges else ""
    parts = [HEAD.format(height=height, width=width, channels=channels, ranged=ranged)]
    parts += [DECODE_RANGED] if ranges else [REFUSE_DEEP, DECODE]
    parts += [SHAPE, BEFORE[fit], RESIZE, AFTER[fit]]
    parts += [] if channels == 3 else [GREY if channels == 1 else REPEAT.format(channels=channels)]
    return "".join([*parts, END.format(most=65535 if ranges else 255)])


def run_loader(path: Path) -> LoadImage:
    """Return the function of a file that `loading_code` made, executed as it was written."""
    return runpy.run_path(str(path))["load_image"]

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
"""Load an image as the model takes it. Needs {packages}."""

import io

import cv2
import numpy as np
{imports}

HEIGHT, WIDTH = {height}, {width}


def load_image(data{ranged}):
    """Bytes of an image file -> (1, {channels}, HEIGHT, WIDTH) float32 in [0, 1]."""
'''
DECODE = """\
    opened = Image.open(io.BytesIO(data))
    if opened.mode[0] in "IF":
        raise ValueError("the image has more than 8 bits, the model was trained on images of 8 bits")
    image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
"""
DECODE_DEEP = """\
    if data[:4] in (b"II*\\0", b"MM\\0*"):
        values = np.atleast_3d(tifffile.imread(io.BytesIO(data)))  # (H, W, bands)
{planes}    else:
        encoded = np.frombuffer(data, np.uint8)
        values = np.atleast_3d(cv2.imdecode(encoded, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR))[..., ::-1]
"""
RANGE = """\
    low, high = (0, 255) if values.dtype == np.uint8 else (low, high)
    levels = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 65535
    image = levels.round().astype(np.uint16)
"""
NO_RANGE = """\
    if values.dtype != np.uint8:
        raise ValueError("the image has more than 8 bits, the model was trained on images of 8 bits")
    image = np.ascontiguousarray(values)
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
RESIZE_BANDS = """\
    smaller = min(width, columns), min(height, rows)
    bands = [cv2.resize(b, smaller, interpolation=cv2.INTER_AREA) for b in cv2.split(image)]
    image = np.dstack([cv2.resize(b, (columns, rows), interpolation=cv2.INTER_LINEAR) for b in bands])
"""  # OpenCV resizes four channels at once
PLANES = """\
        if values.shape[0] == {channels} != values.shape[2]:
            values = np.moveaxis(values, 0, 2)  # of a file that holds one band after the other
"""
AFTER = {
    "stretch": "",
    "crop": "",
    "pad": """\
    inner = np.atleast_3d(image)
    image = np.empty((HEIGHT, WIDTH, inner.shape[2]), image.dtype)
    image[:] = inner.mean((0, 1)).round()
    top, left = (HEIGHT - rows) // 2, (WIDTH - columns) // 2
    image[top : top + rows, left : left + columns] = inner
""",
}
GREY = "    image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]\n"
GREY_IF_COLOUR = """\
    image = np.atleast_3d(image if image.ndim < 3 or image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
"""
REPEAT = """\
    image = np.atleast_3d(image)
    image = np.repeat(image, {channels} // image.shape[2], axis=2)
"""
END = "    return image.transpose(2, 0, 1)[None].astype(np.float32) / {most}\n"


def loading_code(about: Mapping[str, Any]) -> str:
    """Return the text of `load_image.py` for the metadata of an export.

    Models of 8-bit images with one or three channels need Pillow only to decode. Others take the numbers of the file:
    from tifffile or OpenCV, scaled by the range of the training images.
    """
    (height, width), channels, fit = about["image_size"], about["channels"], about["fit"]
    ranges, is_common = list((about.get("value_ranges") or {}).values()), channels in (1, 3)
    is_deep = bool(ranges) or not is_common
    ranged = f", low={ranges[0]['low']!r}, high={ranges[0]['high']!r}" if ranges else ""
    packages = ("tifffile" if is_deep else "Pillow") + ", NumPy and OpenCV (opencv-python-headless)"
    imports = "import tifffile" if is_deep else "from PIL import Image, ImageOps"
    head = HEAD.format(packages=packages, imports=imports, height=height, width=width, channels=channels, ranged=ranged)
    deep = DECODE_DEEP.format(planes=PLANES.format(channels=channels))
    decode = deep + (RANGE if ranges else NO_RANGE) if is_deep else DECODE
    resize = RESIZE_BANDS if channels > 4 else RESIZE
    if is_deep:
        to_channels = GREY_IF_COLOUR if channels == 1 else REPEAT.format(channels=channels)
    else:
        to_channels = GREY if channels == 1 else ""
    end = END.format(most=65535 if ranges else 255)
    return "".join([head, decode, SHAPE, BEFORE[fit], resize, AFTER[fit], to_channels, end])


def run_loader(path: Path) -> LoadImage:
    """Return the function of a file that `loading_code` made, executed as it was written."""
    return runpy.run_path(str(path))["load_image"]

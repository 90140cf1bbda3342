"""Contact sheets: many small images in one figure."""
# n images, H W pixels, C channels

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from vision_mtl.viz.reconstruction import picture_strip
from vision_mtl.viz.style import TITLE, new_figure, short

COLUMNS = 10


def sheet_figure(images: np.ndarray, title: str) -> Figure:
    """Draw images (n, H, W, C) float in [0, 1] in rows of ten. Raises `ValueError` for no image."""
    if len(images) == 0:
        raise ValueError("no picture to show")
    rows = math.ceil(len(images) / COLUMNS)
    columns = min(COLUMNS, len(images))
    blank = np.ones((rows * columns - len(images), *images.shape[1:]), images.dtype)
    padded = np.concatenate([images, blank])
    mosaic = np.concatenate([picture_strip(padded[i * columns : (i + 1) * columns]) for i in range(rows)])
    figure = new_figure(0.9 * columns, 0.9 * rows * images.shape[1] / images.shape[2] + 0.4)
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="none")
    axes.set_title(short(title, 80), loc="left", fontsize=TITLE)
    axes.axis("off")
    return figure

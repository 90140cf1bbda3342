"""Contact sheet of predictions: each image, its masks for dense tasks, and the prediction of each head."""
# n images, H W pixels, C channels, K classes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.reconstruction import picture_strip
from vision_mtl.viz.style import new_figure, short

COLUMNS = 5  # cells per row; fewer if cells have several pictures
PICTURE, LINE, GAP, MARGIN = 1.5, 0.15, 0.14, 0.12  # inches
LONGEST = 29  # characters per line below one picture


@dataclass(frozen=True)
class Cell:
    """One image: pictures (H, W, C) float in [0, 1] in a row, with a title and (text, colour) lines below."""

    pictures: Sequence[np.ndarray]
    title: str
    lines: Sequence[tuple[str, str | tuple[float, ...]]]


def mask_palette() -> np.ndarray:
    """Return (256, 3) uint8: the PASCAL VOC colours, in which close numbers differ clearly; 0 is black."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(3):  # bits 3b, 3b+1, 3b+2 of a number are bit 7-b of its red, green and blue
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) float in [0, 1] blended with the palette's colours of `mask` (H, W): (H, W, 3)."""
    shown = shown_bands(image)
    rgb = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown
    return 0.45 * rgb + 0.55 * mask_palette()[mask] / 255


def predictions_figure(cells: Sequence[Cell]) -> Figure:
    """Draw the cells in rows, from left to right. Raises `ValueError` for none."""
    if not cells:
        raise ValueError("no prediction to show")
    width = PICTURE * len(cells[0].pictures)
    columns = min(len(cells), max(1, COLUMNS // len(cells[0].pictures)))
    rows = math.ceil(len(cells) / columns)
    tall = width / len(cells[0].pictures) * cells[0].pictures[0].shape[0] / cells[0].pictures[0].shape[1]
    height = tall + LINE * (1 + max(len(cell.lines) for cell in cells)) + GAP
    page = (columns * (width + GAP) + MARGIN, rows * height + MARGIN)
    figure = new_figure(*page, layout="none")
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (width + GAP), page[1] - MARGIN - row * height
        axes = figure.add_axes((left / page[0], (top - tall) / page[1], width / page[0], tall / page[1]))
        axes.imshow(picture_strip(np.stack(cell.pictures)), interpolation="none", aspect="auto")
        axes.axis("off")
        longest = LONGEST * len(cell.pictures)
        for line, (text, colour) in enumerate([(_end_of(cell.title, longest), "0.5"), *cell.lines]):
            place = (left / page[0], (top - tall - LINE * (line + 0.8)) / page[1])
            shown = short(text, longest)
            figure.text(*place, shown, fontsize=7, color=colour, parse_math=False)
    return figure


def _end_of(path: str, longest: int) -> str:
    """Return the end of a long path, where files of one folder differ."""
    return path if len(path) <= longest else "…" + path[1 - longest :]

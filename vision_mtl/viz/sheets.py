"""A contact sheet: a few small images of each class, the class's name below, 1,000 pixels wide."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.figure import Figure

from vision_mtl.viz.style import new_figure, short

COLUMNS = 12  # images in a row
WIDTH, PITCH, SIDE = 1000, 82, 79  # pixels: of the sheet; from one image to the next; of an image
MARGIN, TITLE, CAPTION, GAP = 8, 26, 16, 4  # pixels
DPI, LETTER = 100, 7.2  # pixels of an inch; of a letter of a caption, on average


@dataclass(frozen=True)
class Block:
    """Images (n, H, W, C) float in [0, 1] side by side, C = 1 or 3, with a caption below them."""

    images: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """Blocks below a title; as many are in a row as fit."""

    title: str
    blocks: Sequence[Block]

    @property
    def longest(self) -> int:
        """The largest number of images of a block, at least 1."""
        return max((len(block.images) for block in self.blocks), default=0) or 1


def sheet_figure(sections: Sequence[Section]) -> Figure:
    """Draw the sections below each other; blocks without an image keep their caption. Raises `ValueError` for none."""
    shape = next((block.images.shape[1:] for section in sections for block in section.blocks), None)
    if shape is None:
        raise ValueError("no picture to show")
    side = max(1, round(SIDE * shape[0] / shape[1]))
    sheet, texts, top = np.ones((0, WIDTH, 3), np.float32), [], 0
    for section in sections:
        texts.append((MARGIN, top + TITLE - 8, short(section.title, 120), 10))
        per_row = max(1, COLUMNS // section.longest)
        height = side + GAP + (CAPTION if any(block.caption for block in section.blocks) else 0)
        rows = -(-len(section.blocks) // per_row)
        part = np.ones((TITLE + rows * height, WIDTH, 3), np.float32)
        for number, block in enumerate(section.blocks):
            row, column = divmod(number, per_row)
            left, y = MARGIN + column * section.longest * PITCH, TITLE + row * height
            for i, image in enumerate(block.images):
                x = left + i * (SIDE + 1)
                part[y : y + side, x : x + SIDE] = _resized(image, (SIDE, side))
            texts.append((left, top + y + side + CAPTION - 4, short(block.caption, _letters(section)), 8))
        sheet, top = np.concatenate([sheet, part]), top + len(part)
    return _drawn(np.concatenate([sheet, np.ones((MARGIN, WIDTH, 3), np.float32)]), texts)


def _letters(section: Section) -> int:
    """Return how many letters of a caption fit below a block."""
    return int(section.longest * PITCH / LETTER)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, C) at `size` (width, height), grey as three channels."""
    smaller = image.shape[1] > size[0]
    found = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return found[..., None] if found.ndim == 2 else found


def _drawn(sheet: np.ndarray, texts: Sequence[tuple[int, int, str, int]]) -> Figure:
    """Return a figure of the sheet (H, W, 3), pixel by pixel, with texts of (x, y, text, points) on their baselines."""
    height, width = sheet.shape[:2]
    figure = new_figure(width / DPI, height / DPI, layout="none")
    figure.set_dpi(DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet, interpolation="none", extent=(0, width, height, 0), aspect="auto")
    axes.axis("off")
    for x, y, text, points in texts:
        axes.text(x, y, text, fontsize=points, fontweight="bold" if points > 8 else "normal")
    return figure

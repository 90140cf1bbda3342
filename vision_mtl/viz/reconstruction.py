"""Pictures of repairs: one panel per pretext, one column per image, one row per step from original to error."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.style import new_figure, wrapped

GAP = 3  # white pixels between pictures, after enlarging
CELL = 128  # pixels to which small pictures are enlarged, without smoothing
PICTURE, LABELS, CAPTION, MARGIN = 0.9, 1.1, 0.32, 0.08  # inches
NARROWEST = 5.0  # inches of a figure with few columns, which has a title all the same
NAME, NOTE, SMALL = 10, 8, 7  # points; of a page of eight columns a browser shows them as 16, 13 and 11 pixels
TITLE_LINE, NOTE_LINE = 0.22, 0.14  # inches
ERROR = "error, % of\nthe full range"  # label of a row of error maps, with a scale below
BRIGHTEST_ERROR = 0.3  # mean absolute difference of the brightest colour
MAP = "inferno"


@dataclass(frozen=True)
class Panel:
    """One panel: `rows` are (label, images (n, H, W, C) float in [0, 1]), `captions` are below the columns.

    `note` explains the title below it.
    """

    title: str
    rows: Sequence[tuple[str, np.ndarray]]
    captions: Sequence[str] = field(default_factory=list)
    note: str = ""


def error_map(repaired: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Return (n, H, W, 3): the mean absolute difference over channels, from black (0) to yellow (0.3 and more).

    `repaired` and `original` are (n, H, W, C) in [0, 1].
    """
    difference = np.abs(repaired - original).mean(-1) / BRIGHTEST_ERROR
    return matplotlib.colormaps[MAP](np.clip(difference, 0, 1))[..., :3]


def reconstruction_figure(panels: Sequence[Panel]) -> Figure:
    """Draw the panels below each other with aligned columns. Raises `ValueError` for none."""
    if not panels:
        raise ValueError("no panel to draw")
    columns = max(len(panel.rows[0][1]) for panel in panels)
    width = max(LABELS + columns * PICTURE + MARGIN, NARROWEST)
    heads = [_head(panel, width) for panel in panels]
    heights = [
        _head_height(head) + _picture_height(panel) * len(panel.rows) + _caption_height(panel)
        for panel, head in zip(panels, heads, strict=True)
    ]
    height = sum(heights) + MARGIN
    figure = new_figure(width, height, layout="none")
    top = height
    for panel, head, panel_height in zip(panels, heads, heights, strict=True):
        title, note = head
        figure.text(MARGIN / width, (top - 0.12) / height, title, fontsize=NAME, weight="bold", va="top")
        below = top - 0.12 - TITLE_LINE * (title.count("\n") + 1)
        figure.text(MARGIN / width, below / height, note, fontsize=NOTE, va="top")
        drawn = PICTURE * len(panel.rows[0][1]), _picture_height(panel) * len(panel.rows)
        bottom = top - _head_height(head) - drawn[1]
        place = (LABELS / width, bottom / height, drawn[0] / width, drawn[1] / height)
        _draw_panel(figure.add_axes(place), panel)
        top -= panel_height
    return figure


def _head(panel: Panel, width: float) -> tuple[str, str]:
    """Return the title and the note in lines that fit into `width` inches."""
    room = width - 2 * MARGIN
    return wrapped(panel.title, room, 1.1 * NAME), wrapped(panel.note, room, NOTE)  # bold letters are wider


def _head_height(head: tuple[str, str]) -> float:
    title, note = head
    notes = NOTE_LINE * (note.count("\n") + 1) if note else 0.0
    return 0.2 + TITLE_LINE * (title.count("\n") + 1) + notes


def _draw_panel(axes: Axes, panel: Panel) -> None:
    strips = [picture_strip(images) for _, images in panel.rows]
    count = len(panel.rows[0][1])
    axes.imshow(np.concatenate(strips), interpolation="none", aspect="auto", extent=(0, count, len(strips), 0))
    for row, (label, _) in enumerate(panel.rows):
        if label == ERROR:
            _error_scale(axes, count, (len(strips) - row - 0.7) / len(strips), len(strips))
    heights = [row + (0.32 if label == ERROR else 0.5) for row, (label, _) in enumerate(panel.rows)]
    axes.set_yticks(heights, [label for label, _ in panel.rows], fontsize=NOTE)
    captions = [wrapped(text, PICTURE) for text in panel.captions] or [""] * count
    axes.set_xticks(np.arange(count) + 0.5, captions, fontsize=SMALL)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _error_scale(axes: Axes, columns: int, bottom: float, rows: int) -> None:
    """Draw the colours of error maps at the left of `axes`, `bottom` as a share of their height."""
    scale = axes.inset_axes((-1.12 / columns, bottom, 0.9 / columns, 0.07 / rows))
    scale.imshow(np.linspace(0, 1, 64)[None], cmap=MAP, aspect="auto", extent=(0, 1, 0, 1))
    scale.set_xticks([0.0, 1.0], ["0", f"{100 * BRIGHTEST_ERROR:g}+"], fontsize=SMALL)
    scale.set_yticks([])
    scale.tick_params(length=0, pad=1)


def _picture_height(panel: Panel) -> float:
    height, width = panel.rows[0][1].shape[1:3]
    return PICTURE * height / width


def _caption_height(panel: Panel) -> float:
    return CAPTION if panel.captions else 0.0


def picture_strip(images: np.ndarray) -> np.ndarray:
    """Return images (n, H, W, C) as one row of RGB pictures, with white gaps to the right and below."""
    times = max(1, round(CELL / max(images.shape[1:3])))
    shown = shown_bands(images)
    rgb = np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown
    large = rgb.repeat(times, axis=1).repeat(times, axis=2)
    framed = np.pad(large, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0)
    return np.concatenate(list(framed), axis=1)

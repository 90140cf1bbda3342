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
from vision_mtl.viz.style import new_figure

GAP = 3  # white pixels between pictures, after enlarging
CELL = 128  # pixels to which small pictures are enlarged, without smoothing
PICTURE, LABELS, TITLE, CAPTION, MARGIN = 0.9, 1.35, 0.32, 0.32, 0.08  # inches
LETTER = 0.082  # inches per letter of a title
BRIGHTEST_ERROR = 0.3  # mean absolute difference of the brightest colour


@dataclass(frozen=True)
class Panel:
    """One panel: `rows` are (label, images (n, H, W, C) float in [0, 1]), `captions` are below the columns."""

    title: str
    rows: Sequence[tuple[str, np.ndarray]]
    captions: Sequence[str] = field(default_factory=list)


def error_map(repaired: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Return (n, H, W, 3): the mean absolute difference over channels, from black (0) to yellow (0.3 and more).

    `repaired` and `original` are (n, H, W, C) in [0, 1].
    """
    difference = np.abs(repaired - original).mean(-1) / BRIGHTEST_ERROR
    return matplotlib.colormaps["inferno"](np.clip(difference, 0, 1))[..., :3]


def reconstruction_figure(panels: Sequence[Panel]) -> Figure:
    """Draw the panels below each other with aligned columns. Raises `ValueError` for none."""
    if not panels:
        raise ValueError("no panel to draw")
    columns = max(len(panel.rows[0][1]) for panel in panels)
    heights = [TITLE + _picture_height(panel) * len(panel.rows) + _caption_height(panel) for panel in panels]
    longest = LETTER * max(len(panel.title) for panel in panels)
    width, height = LABELS + max(columns * PICTURE, longest) + MARGIN, sum(heights) + MARGIN
    figure = new_figure(width, height, layout="none")
    top = height
    for panel, panel_height in zip(panels, heights, strict=True):
        drawn = PICTURE * len(panel.rows[0][1]), _picture_height(panel) * len(panel.rows)
        bottom = top - TITLE - drawn[1]
        place = (LABELS / width, bottom / height, drawn[0] / width, drawn[1] / height)
        _draw_panel(figure.add_axes(place), panel)
        figure.text(LABELS / width, (top - 0.8 * TITLE) / height, panel.title, fontsize=9, weight="bold", va="bottom")
        top -= panel_height
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    strips = [picture_strip(images) for _, images in panel.rows]
    count = len(panel.rows[0][1])
    axes.imshow(np.concatenate(strips), interpolation="none", aspect="auto", extent=(0, count, len(strips), 0))
    axes.set_yticks(np.arange(len(strips)) + 0.5, [label for label, _ in panel.rows], fontsize=8)
    axes.set_xticks(np.arange(count) + 0.5, panel.captions or [""] * count, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


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

"""Pictures of repairs: one panel a pretext, one column an image, one row a step from original to error."""
# n images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vision_mtl.viz.style import new_figure

GAP = 3  # white pixels between pictures, after enlarging
CELL = 128  # pixels a side that small pictures are enlarged to, without smoothing
BRIGHTEST_ERROR = 0.3  # mean absolute difference drawn in the map's last colour


@dataclass(frozen=True)
class Panel:
    """`rows` are (label, images (n, H, W, C) float in [0, 1]); `captions` stand under the columns."""

    title: str
    rows: Sequence[tuple[str, np.ndarray]]
    captions: Sequence[str] = field(default_factory=list)


def error_map(repaired: np.ndarray, original: np.ndarray) -> np.ndarray:
    """(n, H, W, C) twice -> (n, H, W, 3): mean absolute difference over channels, black 0 to yellow 0.3 and more."""
    difference = np.abs(repaired - original).mean(-1) / BRIGHTEST_ERROR
    return matplotlib.colormaps["inferno"](np.clip(difference, 0, 1))[..., :3]


def reconstruction_figure(panels: Sequence[Panel]) -> Figure:
    """The panels below each other. Raises `ValueError` for none."""
    if not panels:
        raise ValueError("no panel to draw")
    heights = [len(panel.rows) + 0.45 + 0.3 * bool(panel.captions) for panel in panels]
    columns = max(len(panel.rows[0][1]) for panel in panels)
    figure = new_figure(1.3 + columns, sum(heights))
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        strips = [picture_strip(images) for _, images in panel.rows]
        mosaic = np.concatenate(strips)[: -GAP or None]
        axes.imshow(mosaic, interpolation="none", aspect="equal")
        axes.set_title(panel.title, loc="left", fontsize=9)
        height, width = (
            side / count for side, count in zip(mosaic.shape, (len(strips), len(panel.rows[0][1])), strict=False)
        )
        axes.set_yticks(
            [(i + 0.5) * height for i in range(len(strips))], [label for label, _ in panel.rows], fontsize=8
        )
        names = panel.captions or [""] * len(panel.rows[0][1])
        axes.set_xticks([(i + 0.5) * width for i in range(len(names))], names, fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def picture_strip(images: np.ndarray) -> np.ndarray:
    """(n, H, W, C) -> one row of pictures, RGB, with white gaps."""
    times = max(1, round(CELL / max(images.shape[1:3])))
    rgb = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]
    large = rgb.repeat(times, axis=1).repeat(times, axis=2)
    framed = np.pad(large, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0)
    return np.concatenate(list(framed), axis=1)[:, :-GAP]

"""Gradient conflicts: cosines between the tasks' gradients on the shared layers over training, and their means."""
# n measurements, T objectives

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import (
    AXIS,
    COLUMN,
    TEXT,
    legend_above,
    legend_height,
    line_style,
    new_figure,
    quiet,
    short,
)

NAME, PAIR_NAME = 18, 20  # letters of a task in the heat map, and in a pair's name
CURVES, CELL = 2.0, 0.32  # inches: the height of the curves, a cell of the heat map


def conflicts_figure(steps: np.ndarray, cosines: np.ndarray, names: Sequence[str]) -> Figure | None:
    """Draw a curve for each pair of tasks, above a heat map of the means if there are several pairs.

    `steps` (n,); `cosines` (n, T, T), NaN where a pair was not measured. None without a measurement or a pair.
    """
    if len(steps) == 0 or len(names) < 2:
        return None
    several = len(names) > 2
    heights = [CURVES, 0.9 + CELL * len(names)] if several else [CURVES]
    legend = legend_height([_pair(*pair) for pair in itertools.combinations(names, 2)], COLUMN - AXIS)
    figure = new_figure(COLUMN, sum(heights) + legend)
    above, *below = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _curves(quiet(above), steps, cosines, names)
    counts = np.isfinite(cosines).sum(axis=0)  # (T, T)
    means = np.where(counts > 0, np.nansum(cosines, axis=0) / np.maximum(counts, 1), np.nan)
    for axes in below:
        _heat_map(axes, means, names)
    return figure


def _curves(axes: Axes, steps: np.ndarray, cosines: np.ndarray, names: Sequence[str]) -> None:
    for number, (i, j) in enumerate(itertools.combinations(range(len(names)), 2)):
        measured = np.isfinite(cosines[:, i, j])
        label = _pair(names[i], names[j])
        axes.plot(steps[measured], cosines[measured, i, j], linewidth=1.2, label=label, **line_style(number))
    axes.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_ylim(-1, 1)
    axes.set_xlabel("step", fontsize=TEXT)
    axes.set_ylabel("cosine of gradients\n(below 0: conflict)", fontsize=TEXT)
    legend_above(axes, COLUMN - AXIS)


def _pair(first: str, second: str) -> str:
    return f"{short(first, PAIR_NAME)}, {short(second, PAIR_NAME)}"


def _heat_map(axes: Axes, means: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(means, cmap="RdBu", vmin=-1, vmax=1)  # red: conflict
    for i, j in itertools.product(range(len(names)), repeat=2):
        if np.isfinite(means[i, j]):
            shade = "white" if abs(means[i, j]) > 0.6 else "black"
            axes.text(j, i, f"{means[i, j]:.2f}", ha="center", va="center", fontsize=TEXT, color=shade)
    shown = [short(name, NAME) for name in names]
    axes.set_xticks(range(len(names)), shown, fontsize=TEXT, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), shown, fontsize=TEXT)
    axes.set_title("mean over training", fontsize=TEXT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

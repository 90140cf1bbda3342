"""Gradient conflicts: cosines between the tasks' gradients on the shared layers over training, and their means."""
# n measurements, T objectives

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLOURS, new_figure, quiet, short

LINES = ("-", "--", ":", "-.")  # after the last colour, colours repeat in the next line style


def conflicts_figure(steps: np.ndarray, cosines: np.ndarray, names: Sequence[str]) -> Figure | None:
    """Draw a curve for each pair of tasks and a heat map of the means; None without a measurement or a pair.

    `steps` (n,); `cosines` (n, T, T), NaN where a pair was not measured.
    """
    if len(steps) == 0 or len(names) < 2:
        return None
    figure = new_figure(5.5 + 1.6 + 0.6 * len(names), 1.6 + 0.6 * max(3, len(names)))
    left, right = figure.subplots(1, 2, width_ratios=(5.5, 1.6 + 0.6 * len(names)))
    _curves(quiet(left), steps, cosines, names)
    counts = np.isfinite(cosines).sum(axis=0)  # (T, T)
    means = np.where(counts > 0, np.nansum(cosines, axis=0) / np.maximum(counts, 1), np.nan)
    _heat_map(right, means, names)
    return figure


def _curves(axes: Axes, steps: np.ndarray, cosines: np.ndarray, names: Sequence[str]) -> None:
    for number, (i, j) in enumerate(itertools.combinations(range(len(names)), 2)):
        measured = np.isfinite(cosines[:, i, j])
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        }
        axes.plot(
            steps[measured],
            cosines[measured, i, j],
            linewidth=1.2,
            label=f"{short(names[i])}, {short(names[j])}",
            **style,
        )
    axes.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_ylim(-1, 1)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("cosine of gradients (below 0: conflict)", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=2)


def _heat_map(axes: Axes, means: np.ndarray, names: Sequence[str]) -> None:
    axes.imshow(means, cmap="RdBu", vmin=-1, vmax=1)  # red: conflict
    for i, j in itertools.product(range(len(names)), repeat=2):
        if np.isfinite(means[i, j]):
            shade = "white" if abs(means[i, j]) > 0.6 else "black"
            axes.text(j, i, f"{means[i, j]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set_xticks(range(len(names)), [short(name) for name in names], fontsize=8, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
    axes.set_title("mean over training", fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

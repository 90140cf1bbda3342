"""Results of a probe: scores with their references, confusion matrices, and maps of the embeddings."""
# n images, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vision_mtl.viz.dots import Dot, dots_figure
from vision_mtl.viz.style import (
    COLOURS,
    COLUMN,
    PAGE,
    TEXT,
    TITLE,
    legend_below,
    legend_height,
    new_figure,
    short,
    wrapped,
)

MARKERS = ("o", "s", "^")  # with seven colours, 21 distinct classes
LEGEND_CLASSES = 20  # largest number of classes with a legend
NUMBERED_CLASSES = 10  # largest confusion matrix with counts in its cells
NAMED_CLASSES = 40  # largest confusion matrix with class names
NAME, WIDE_NAME = 16, 20  # letters of a class's name in a column, and on a page
BAR = 0.65  # inches of a colour bar with its label
Score = Mapping[str, Any]


def scores_figure(scores: Mapping[str, Mapping[str, Score]], metric: str) -> Figure | None:
    """Draw a dot and interval for each method, in a group for each task; None without a score.

    `scores` is task -> method -> {"value", "low", "high"}. A method has the same colour in all groups.
    """
    methods = list(dict.fromkeys(method for found in scores.values() for method in found))
    if not methods:
        return None
    groups = {task: [_dot(method, methods, score) for method, score in found.items()] for task, found in scores.items()}
    figure = dots_figure(groups, f"{metric} on test images", ["95 % intervals"])
    if metric in ("accuracy", "auroc"):
        figure.axes[0].set_xlim(-0.02, 1.02)
    return figure


def _dot(method: str, methods: Sequence[str], score: Score) -> Dot:
    number = methods.index(method)
    style = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return Dot(method.replace("_", " "), score["value"], score["low"], score["high"], *style)


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw (K, K) counts, rows true and columns predicted, as shares of each row; small matrices show the counts.

    It is as wide as a column, or as a page if many classes have names.
    """
    size = len(class_names)
    wide = NUMBERED_CLASSES < size <= NAMED_CLASSES
    width = PAGE if wide else COLUMN
    names = [short(name, WIDE_NAME if wide else NAME) for name in class_names]
    figure = new_figure(width, width - 0.35)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= NUMBERED_CLASSES:
        for row, column in np.ndindex(confusion.shape):
            colour = "white" if shares[row, column] > 0.5 else "0.2"
            count = str(confusion[row, column])
            axes.text(column, row, count, ha="center", va="center", fontsize=TEXT, color=colour)
    if size <= NAMED_CLASSES:
        upright = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(size), names, fontsize=TEXT, rotation=upright)
        axes.set_yticks(range(size), names, fontsize=TEXT)
    axes.tick_params(length=0, labelsize=TEXT)
    axes.set_ylabel("true", fontsize=TEXT)
    axes.set_xlabel("predicted", fontsize=TEXT)
    figure.suptitle(wrapped(title, width, TITLE), fontsize=TITLE, x=0.01, ha="left")
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class", fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    return figure


def embedding_figure(points: np.ndarray, classes: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw a map of images at `points` (n, 2) coloured by class (n,) int64, with a legend for up to 20 classes."""
    names = [short(name, NAME) for name in class_names]
    distinct = len(COLOURS) * len(MARKERS)
    repeated = f"; of {len(names)} classes, those {distinct} apart look alike" if len(names) > distinct else ""
    named = len(names) <= LEGEND_CLASSES
    figure, axes = _map(points, title + repeated, COLUMN, legend_height(names, COLUMN) + 0.1 if named else 0.0)
    for k in np.unique(classes):
        style = _class_style(int(k))
        axes.plot(*points[classes == k].T, markersize=3, linestyle="none", alpha=0.8, markeredgewidth=0, **style)
    if named:
        handles = [Line2D([], [], linestyle="none", markersize=4, **_class_style(k)) for k in range(len(names))]
        legend_below(figure, handles, names)
    return figure


def values_figure(points: np.ndarray, values: np.ndarray, title: str, label: str) -> Figure:
    """Draw a map of images at `points` (n, 2) coloured by their number (n,), which the colour bar calls `label`."""
    figure, axes = _map(points, title, COLUMN - BAR, 0.0)
    cloud = axes.scatter(points[:, 0], points[:, 1], c=values, s=7, cmap="cividis", linewidths=0)
    bar = figure.colorbar(cloud, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(short(label, 40), fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    return figure


def _class_style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
    }


def _map(points: np.ndarray, title: str, width: float, below: float) -> tuple[Figure, Axes]:
    """Return a figure with axes for a map of `width` inches without ticks: its positions have no unit.

    The figure is as high as the map, its title, and `below` inches for a legend.
    """
    across, down = np.ptp(points, axis=0)
    height = width * float(np.clip(down / max(across, 1e-9), 0.4, 1.4))
    lines = wrapped(title, COLUMN, TITLE)
    figure = new_figure(COLUMN, 0.15 + 0.15 * (lines.count("\n") + 1) + height + below)
    figure.suptitle(lines, fontsize=TITLE, x=0.01, ha="left")
    axes = figure.subplots()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="box")
    axes.spines[:].set_color("0.8")
    return figure, axes

"""Results of a probe: scores with their references, confusion matrices, and maps of the embeddings."""
# n images, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vision_mtl.viz.style import COLOURS, new_figure, quiet, short

MARKERS = ("o", "s", "^")  # with seven colours, 21 distinct classes
LEGEND_CLASSES = 20  # largest number of classes with a legend
NUMBERED_CLASSES = 12  # largest confusion matrix with counts in its cells
NAMED_CLASSES = 40  # largest confusion matrix with class names
LETTER = 0.08  # inches per letter of a name at 7 points: names that would touch are vertical
MAP_WIDTH, MAP_MARGIN = 4.8, 0.5  # inches
Score = Mapping[str, Any]


def scores_figure(scores: Mapping[str, Mapping[str, Score]], metric: str) -> Figure | None:
    """Draw a row per task with a dot and interval for each method; None without a score.

    `scores` is task -> method -> {"value", "low", "high"}. A method has the same colour in all rows; methods are in the
    order of their first appearance, from top to bottom.
    """
    methods = list(dict.fromkeys(method for found in scores.values() for method in found))
    if not methods:
        return None
    figure = new_figure(7, 1.1 + 0.75 * len(scores))
    axes = quiet(figure.subplots())
    for place, found in enumerate(scores.values()):
        for method, score in found.items():
            number = methods.index(method)
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            offset = 0.7 * ((number + 0.5) / len(methods) - 0.5)
            if score["low"] is not None:
                axes.plot([score["low"], score["high"]], [place + offset] * 2, color=style["color"], linewidth=1.8)
            axes.plot(score["value"], place + offset, markersize=5, linestyle="none", **style)
    axes.set_yticks(range(len(scores)), [short(task) for task in scores], fontsize=9)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    for edge in range(1, len(scores)):
        axes.axhline(edge - 0.5, color="0.9", linewidth=0.8)
    if metric in ("accuracy", "auroc"):
        axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel(f"{metric} on test images, 95 % interval", fontsize=8)
    axes.tick_params(labelsize=8)
    _legend(figure, [m.replace("_", " ") for m in methods], columns=len(methods))
    return figure


def confusion_figure(confusion: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw (K, K) counts, rows true and columns predicted, as shares of each row; small matrices show the counts."""
    size = len(class_names)
    side = min(9.0, 2.8 + (0.42 if size <= NUMBERED_CLASSES else 0.16) * size)
    figure = new_figure(side + 1.0, side)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= NUMBERED_CLASSES:
        for row, column in np.ndindex(confusion.shape):
            colour = "white" if shares[row, column] > 0.5 else "0.2"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7, color=colour)
    if size <= NAMED_CLASSES:
        names = [short(name, 24) for name in class_names]
        upright = max(map(len, names)) * LETTER > 0.6 * side / size
        axes.set_xticks(range(size), names, fontsize=7, rotation=90 if upright else 0)
        axes.set_yticks(range(size), names, fontsize=7)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def embedding_figure(points: np.ndarray, classes: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draw a map of images at `points` (n, 2) coloured by class (n,) int64, with a legend for up to 20 classes."""
    named = len(class_names) <= LEGEND_CLASSES
    figure = new_figure(MAP_WIDTH + (1.6 if named else 0.2), _map_height(points))
    axes = _bare(figure.subplots(), title)
    for k in np.unique(classes):
        style = _class_style(int(k))
        axes.plot(*points[classes == k].T, markersize=3.5, linestyle="none", alpha=0.8, markeredgewidth=0, **style)
    if named:
        handles = [Line2D([], [], linestyle="none", markersize=5, **_class_style(k)) for k in range(len(class_names))]
        figure.legend(
            handles, [short(name, 24) for name in class_names], fontsize=7, frameon=False, loc="outside right center"
        )
    return figure


def values_figure(points: np.ndarray, values: np.ndarray, title: str) -> Figure:
    """Draw a map of images at `points` (n, 2) coloured by their number (n,)."""
    figure = new_figure(MAP_WIDTH + 0.8, _map_height(points))
    axes = _bare(figure.subplots(), title)
    cloud = axes.scatter(points[:, 0], points[:, 1], c=values, s=10, cmap="cividis", linewidths=0)
    figure.colorbar(cloud, ax=axes, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
    return figure


def _class_style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
    }


def _map_height(points: np.ndarray) -> float:
    """Return the height in inches at which the map has no white bars above and below."""
    width, height = np.ptp(points, axis=0)
    return MAP_MARGIN + MAP_WIDTH * float(np.clip(height / max(width, 1e-9), 0.4, 1.4))


def _bare(axes: Axes, title: str) -> Axes:
    """Return axes without ticks: positions on the map have no unit."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="box")
    axes.spines[:].set_color("0.8")
    axes.set_title(title, fontsize=9, loc="left")
    return axes


def _legend(figure: Figure, names: Sequence[str], columns: int) -> None:
    styles = [(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(len(names))]
    handles = [Line2D([], [], color=c, marker=m, markersize=5, linewidth=1.8) for c, m in styles]
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside upper center", ncols=columns)

"""Results of discovery: skill against the scale of the damage, and learning curves."""
# rows are mappings of plain values

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vision_mtl.viz.style import (
    AXIS,
    COLUMN,
    NAME,
    PANEL,
    TEXT,
    TITLE,
    legend_above,
    legend_below,
    legend_height,
    line_style,
    new_figure,
    quiet,
    short,
)

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # name of the images -> scale -> score


def scales_figure(by_pretext: Mapping[str, Scores]) -> Figure | None:
    """Draw skill with its interval at each scale (grid, factor): a panel per pretext, a line per set of images.

    None without a pretext.
    """
    if not by_pretext:
        return None
    names = list(dict.fromkeys(name for scores in by_pretext.values() for name in scores))
    shown = [short(name, NAME) for name in names]
    figure = new_figure(COLUMN, PANEL * len(by_pretext) + legend_height(shown, COLUMN) + 0.2)
    panels = figure.subplots(len(by_pretext), 1, squeeze=False)[:, 0]
    for place, (pretext, scores) in zip(panels, by_pretext.items(), strict=True):
        _scales(quiet(place), pretext, scores, names)
        place.set_ylabel("skill_learned", fontsize=TEXT)
    panels[-1].set_xlabel("0: best rule without training, 1: perfect; 95 % interval", fontsize=TEXT)
    if len(names) > 1:
        handles = [Line2D([], [], marker="o", markersize=3.5, **line_style(k)) for k in range(len(names))]
        legend_below(figure, handles, shown)
    return figure


def learning_curves_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw skill against images seen: a panel per pretext, a line per scale; None without a row."""
    pretexts = list(dict.fromkeys(row["pretext"] for row in rows))
    if not pretexts:
        return None
    figure = new_figure(COLUMN, (PANEL + 0.2) * len(pretexts))
    panels = figure.subplots(len(pretexts), 1, squeeze=False, sharex=True)[:, 0]
    for place, pretext in zip(panels, pretexts, strict=True):
        own = [row for row in rows if row["pretext"] == pretext and row["skill"] is not None]
        for number, scale in enumerate(dict.fromkeys(row["scale"] for row in own)):
            points = [(row["images_seen"], row["skill"]) for row in own if row["scale"] == scale]
            style = {"marker": "o", "markersize": 2.5, "linewidth": 1.2, **line_style(number)}
            place.plot(*zip(*points, strict=True), label=scale, **style)
        quiet(place).axhline(0, color="0.4", linewidth=1, linestyle="--")
        place.set_xlim(left=0)
        place.set_ylabel("skill, a few images", fontsize=TEXT)
        legend_above(place, COLUMN - AXIS, title=pretext)
    panels[-1].set_xlabel("images seen by each fold's network", fontsize=TEXT)
    return figure


def _scales(axes: Axes, pretext: str, scores: Scores, names: Sequence[str]) -> None:
    scales = list(dict.fromkeys(scale for found in scores.values() for scale in found))
    for name, found in scores.items():
        number = names.index(name)
        shift = 0.5 * ((number + 0.5) / len(names) - 0.5)  # horizontal shift, so that intervals do not overlap
        places = [scales.index(scale) + shift for scale in found]
        style = line_style(number)
        axes.plot(places, [s["value"] for s in found.values()], marker="o", markersize=3.5, linewidth=1.2, **style)
        for place, score in zip(places, found.values(), strict=True):
            if score["low"] is not None:
                axes.plot([place, place], [score["low"], score["high"]], linewidth=1.5, **style)
    axes.set_xticks(range(len(scales)), scales, fontsize=TEXT)
    axes.set_xlim(-0.5, len(scales) - 0.5)
    axes.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_title(pretext, fontsize=TITLE, loc="left")

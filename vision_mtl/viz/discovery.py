"""Results of discovery: skill against the scale of the damage, and learning curves."""
# rows are mappings of plain values

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLOURS, new_figure, quiet

LINES = ("-", "--", ":", "-.")
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # name of the images -> scale -> score


def scales_figure(by_pretext: Mapping[str, Scores]) -> Figure | None:
    """Draw skill with its interval at each scale (grid, factor): a panel per pretext, a line per set of images.

    None without a pretext.
    """
    if not by_pretext:
        return None
    widths = [1.4 + max(len(found) for found in scores.values()) for scores in by_pretext.values()]
    figure = new_figure(1.0 + sum(widths) * 0.75, 3.6)
    axes = figure.subplots(1, len(by_pretext), width_ratios=widths, squeeze=False)[0]
    names = list(dict.fromkeys(name for scores in by_pretext.values() for name in scores))
    for place, (pretext, scores) in zip(axes, by_pretext.items(), strict=True):
        _scales(quiet(place), pretext, scores, names)
    axes[0].set_ylabel("skill_learned, 95 % interval\n(0: best rule without learning, by source)", fontsize=8)
    handles, labels = max((place.get_legend_handles_labels() for place in axes), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=min(3, len(labels)))
    return figure


def learning_curves_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw skill against images seen: a panel per pretext, a line per scale; None without a row."""
    pretexts = list(dict.fromkeys(row["pretext"] for row in rows))
    if not pretexts:
        return None
    figure = new_figure(0.6 + 3.0 * len(pretexts), 3.0)
    axes = figure.subplots(1, len(pretexts), squeeze=False)[0]
    for place, pretext in zip(axes, pretexts, strict=True):
        own = [row for row in rows if row["pretext"] == pretext and row["skill"] is not None]
        for number, scale in enumerate(dict.fromkeys(row["scale"] for row in own)):
            points = [(row["images_seen"], row["skill"]) for row in own if row["scale"] == scale]
            colour = COLOURS[number % len(COLOURS)]
            quiet(place).plot(*zip(*points, strict=True), "o-", color=colour, markersize=3, linewidth=1.2, label=scale)
        _dress(place, pretext)
        place.set_xlim(left=0)
        place.set_xlabel("images seen by each fold's network", fontsize=8)
        if own:
            place.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("skill on a few held-out images", fontsize=8)
    return figure


def _scales(axes: Axes, pretext: str, scores: Scores, names: Sequence[str]) -> None:
    scales = list(dict.fromkeys(scale for found in scores.values() for scale in found))
    for name, found in scores.items():
        number = names.index(name)
        shift = 0.5 * ((number + 0.5) / len(names) - 0.5)  # horizontal shift, so that intervals do not overlap
        places = [scales.index(scale) + shift for scale in found]
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        axes.plot(
            places, [s["value"] for s in found.values()], "o", linestyle=line, color=colour, markersize=4, label=name
        )
        for place, score in zip(places, found.values(), strict=True):
            if score["low"] is not None:
                axes.plot([place, place], [score["low"], score["high"]], color=colour, linewidth=1.5)
    axes.set_xticks(range(len(scales)), scales)
    axes.set_xlim(-0.5, len(scales) - 0.5)
    _dress(axes, pretext)


def _dress(axes: Axes, pretext: str) -> None:
    axes.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_title(pretext, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)

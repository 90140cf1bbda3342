"""Results of a study for one task: scores against the number of labels, and paired differences between arms.

Figures are as wide as a paper's column, and pages enlarge them; names are above their rows.
"""
# records are mappings of plain values, as in a study's `result.json`

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vision_mtl.viz.style import COLOURS, COLUMN, LINES, TEXT, legend_below, legend_height, new_figure, quiet, short

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LOG_SPAN = 10  # ratio of label fractions above which the axis is logarithmic
LABEL_COUNTS = ("num_labelled", "num_validation")
NAME = 44  # letters of a name in a legend
TITLE_LETTERS, TITLE_LINES = 56, 2  # of a row's name
ROW, NAME_LINE = 0.3, 0.13  # inches of a row, and of each line of the names above the rows
GREY = "0.45"
BAND = "0.9"  # of differences that do not matter
VERDICTS = {
    "helps": (COLOURS[0], ">"),
    "hurts": (COLOURS[1], "<"),
    "equivalent": (COLOURS[2], "s"),
    "undecided": ("0.35", "o"),
}
Score = Mapping[str, Any]


def label_curves_figure(
    scores: Sequence[Mapping[str, Any]], arms: Sequence[str], *, factor: float, label: str
) -> Figure | None:
    """Draw the scores of one task against the label fraction, a line per arm with its 95 % band; None without a score.

    A single fraction gives dots. A row of `scores` has `fraction`, `arm`, `num_labelled`, `score`, `chance` (or
    None), and unless it is old `num_validation`. `arms` are all arms of the study, so that an arm has the same colour
    in all figures. Values are multiplied by `factor`.
    """
    fractions = sorted({row["fraction"] for row in scores})
    if not fractions:
        return None
    drawn = [arm for arm in arms if any(row["arm"] == arm for row in scores)]
    if len(fractions) == 1:
        return _dots(scores, drawn, arms, factor, label)
    figure = new_figure(COLUMN, 2.5 + legend_height([short(arm, NAME) for arm in drawn], COLUMN))
    axes = quiet(figure.subplots())
    for arm in drawn:
        own = sorted((row for row in scores if row["arm"] == arm), key=lambda row: row["fraction"])
        _band(axes, own, _style(arm, arms), factor)
    handles = [Line2D([], [], markersize=4, **_style(arm, arms)) for arm in drawn]
    chance = _chance(scores, fractions)
    if chance:
        axes.plot(list(chance), [value * factor for value in chance.values()], color=GREY, linewidth=1, linestyle="--")
        handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle="--"))
    _share_axis(axes, scores, fractions)
    axes.set_ylabel(textwrap.fill(label, 40), fontsize=TEXT)
    names = [*drawn, *(["chance"] if chance else [])]
    legend_below(figure, handles, [short(name, NAME) for name in names])
    return figure


def differences_figure(
    comparisons: Sequence[Mapping[str, Any]],
    titles: Sequence[str],
    *,
    factor: float,
    label: str,
    rope: float | None = None,
) -> Figure | None:
    """Draw a row per comparison of one task: the difference, its 95 % interval (thick) and corrected interval (thin).

    `comparisons` have `difference`, `difference_holm` (scores) and `verdict`, shown by colour and marker; `titles` are
    above the rows; a band shows the differences up to `rope`, which do not matter. Values are multiplied by `factor`.
    None without a comparison.
    """
    if not comparisons:
        return None
    names = [_wrapped(title) for title in titles]
    figure = new_figure(COLUMN, 1.1 + _row_height(names) * len(comparisons))
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    if rope:
        axes.axvspan(-rope * factor, rope * factor, color=BAND, linewidth=0, zorder=0)
    axes.axvline(0, color="0.2", linewidth=1)
    for row, (one, name) in enumerate(zip(comparisons, names, strict=True)):
        colour, marker = VERDICTS[one["verdict"]]
        _interval(axes, one["difference_holm"], row, factor, color=colour, linewidth=1)
        _interval(axes, one["difference"], row, factor, color=colour, linewidth=2.6)
        face = "white" if one["verdict"] == "undecided" else colour
        axes.plot(one["difference"]["value"] * factor, row, marker, color=colour, markerfacecolor=face, markersize=5)
        _name_row(axes, row, name)
    axes.set_ylim(len(comparisons) - 0.6, -0.9)
    axes.set_yticks([])
    axes.margins(x=0.08)
    axes.tick_params(labelsize=TEXT)
    axes.set_xlabel(textwrap.fill(label, 56), fontsize=TEXT)
    _verdict_legend(figure, bool(rope))
    return figure


def _dots(
    scores: Sequence[Mapping[str, Any]], drawn: Sequence[str], arms: Sequence[str], factor: float, label: str
) -> Figure:
    names = [_wrapped(arm) for arm in drawn]
    figure = new_figure(COLUMN, 0.85 + _row_height(names) * len(drawn))
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    chance = _chance(scores, [scores[0]["fraction"]])
    for value in chance.values():
        axes.axvline(value * factor, color=GREY, linewidth=1, linestyle="--")
        handle = Line2D([], [], color=GREY, linewidth=1, linestyle="--")
        legend_below(figure, [handle], ["chance"])
    for row, arm in enumerate(drawn):
        score = next(one["score"] for one in scores if one["arm"] == arm)
        style = {**_style(arm, arms), "linestyle": "none"}
        _interval(axes, score, row, factor, color=style["color"], linewidth=2)
        axes.plot(score["value"] * factor, row, markersize=5, **style)
        _name_row(axes, row, names[row])
    axes.set_ylim(len(drawn) - 0.6, -0.9)
    axes.set_yticks([])
    axes.margins(x=0.08)
    axes.tick_params(labelsize=TEXT)
    axes.set_xlabel(textwrap.fill(f"{label}, 95 % interval", 56), fontsize=TEXT)
    return figure


def _band(axes: Axes, rows: Sequence[Mapping[str, Any]], style: Mapping[str, Any], factor: float) -> None:
    fractions = [row["fraction"] for row in rows]
    lows, highs = ([_known(row["score"][end]) * factor for row in rows] for end in ("low", "high"))
    axes.fill_between(fractions, lows, highs, color=style["color"], alpha=0.13, linewidth=0)
    for fraction, low, high in zip(fractions, lows, highs, strict=True):  # ends stay visible where bands overlap
        axes.plot([fraction] * 2, [low, high], color=style["color"], linewidth=0.9, alpha=0.7)
    axes.plot(fractions, [row["score"]["value"] * factor for row in rows], linewidth=1.2, markersize=4, **style)


def _share_axis(axes: Axes, scores: Sequence[Mapping[str, Any]], fractions: Sequence[float]) -> None:
    if fractions[-1] > LOG_SPAN * fractions[0]:
        axes.set_xscale("log")
        axes.minorticks_off()
    counts = {row["fraction"]: [row.get(key) for key in LABEL_COUNTS] for row in scores}
    texts = {fraction: " + ".join(f"{n:,}" for n in found if n is not None) for fraction, found in counts.items()}
    axes.set_xticks(fractions, [f"{100 * fraction:.3g} %\n{texts[fraction]}" for fraction in fractions])
    axes.tick_params(labelsize=TEXT)
    axes.set_xlabel("share of the labels, and their number: training + validation", fontsize=TEXT)


def _chance(scores: Sequence[Mapping[str, Any]], fractions: Sequence[float]) -> dict[float, float]:
    """Return fraction -> mean over arms of the score of shuffled predictions, for fractions that have one."""
    found = {f: [r["chance"]["value"] for r in scores if r["fraction"] == f and r["chance"]] for f in fractions}
    return {fraction: float(np.mean(values)) for fraction, values in found.items() if values}


def _interval(axes: Axes, score: Score, row: int, factor: float, **style: Any) -> None:
    if score["low"] is not None:
        axes.plot([score["low"] * factor, score["high"] * factor], [row, row], solid_capstyle="butt", **style)


def _name_row(axes: Axes, row: int, name: str) -> None:
    """Write the name above the row on white, because a vertical line may be behind it."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    place = axes.get_yaxis_transform()
    axes.text(0, row - 0.25, name, fontsize=TEXT, va="bottom", transform=place, zorder=5, bbox=paper, linespacing=1.0)


def _wrapped(title: str) -> str:
    lines = textwrap.wrap(" ".join(title.split()), TITLE_LETTERS, max_lines=TITLE_LINES, placeholder=" …")
    return "\n".join(short(line, TITLE_LETTERS) for line in lines)


def _row_height(names: Sequence[str]) -> float:
    return ROW + NAME_LINE * max(name.count("\n") + 1 for name in names)


def _style(arm: str, arms: Sequence[str]) -> dict[str, Any]:
    number = list(arms).index(arm)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def _verdict_legend(figure: Figure, has_rope: bool) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=c, marker=m, linestyle="none", markerfacecolor="white" if v == "undecided" else c)
        for v, (c, m) in VERDICTS.items()
    ]
    handles += [Line2D([], [], color=GREY, linewidth=width) for width in (2.6, 1)]
    names = [*VERDICTS, "95 % interval", "corrected"]
    if has_rope:
        handles.append(Patch(color=BAND))
        names.append("does not matter")
    legend_below(figure, handles, names)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value

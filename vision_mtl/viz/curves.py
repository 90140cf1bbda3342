"""Training curves of a run, and its skills with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.dots import Dot, dots_figure
from vision_mtl.viz.style import (
    AXIS,
    COLOURS,
    COLUMN,
    NAME,
    PANEL,
    TEXT,
    legend_above,
    legend_height,
    line_style,
    new_figure,
    quiet,
    short,
)

LOWEST = -1.0  # smallest skill shown: an early network may be far below, which would flatten the rest
Record = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # source -> pretext -> score


def curves_figure(records: Sequence[Record]) -> Figure | None:
    """Draw losses against images seen, above online probe and validation scores if there are several.

    `records` are the lines of `metrics.jsonl`. A task has the same colour in all panels. None without a training
    record.
    """
    train = [r for r in records if r.get("kind") == "train"]
    if not train:
        return None
    scored = [r for r in records if r.get("tasks")]  # a probe without labels has no scores
    by_kind = {kind: [r for r in scored if r["kind"] == kind] for kind in ("probe", "validation")}
    panels = {kind: found for kind, found in by_kind.items() if len(found) > 1}  # one point is no curve
    losses = sorted({key.removeprefix("loss.") for r in train for key in r if key.startswith("loss.")})
    tasks = sorted({task for found in panels.values() for r in found for task in r["tasks"]})
    names = list(dict.fromkeys([*losses, *tasks]))
    new = [task for task in tasks if task not in losses]  # the others are in the first panel's legend
    figure = _stacked([losses, *([new] * len(panels))])
    first, *rest = figure.axes
    _losses(quiet(first), train, names, of_tasks="validation" in panels)
    images_per_step = train[-1]["images_seen"] / train[-1]["step"]
    for place, (kind, found) in zip(rest, panels.items(), strict=True):
        _scores(quiet(place), kind, found, names, images_per_step)
    legend_above(first, COLUMN - AXIS)
    for place in rest:
        legend_above(place, COLUMN - AXIS, without=[short(name, NAME) for name in losses])
    figure.axes[-1].set_xlabel("images seen", fontsize=TEXT)
    return figure


def skill_figure(
    by_source: Scores,
    classic: Scores | None = None,
    names: Mapping[str, str] | None = None,
    images: str = "test images",
) -> Figure | None:
    """Draw what training added for each source and pretext, a dot with its interval, open if it is not learned.

    `classic` are the skills against the classic repair alone, drawn as small grey crosses; `names` are shown instead of
    sources. None without a score.
    """
    pretexts = sorted({pretext for scores in by_source.values() for pretext in scores})
    if not pretexts:
        return None
    groups: dict[str, list[Dot]] = {}
    for source, scores in by_source.items():
        known = (classic or {}).get(source, {})
        groups[(names or {}).get(source, source)] = [
            _dot(pretext, COLOURS[pretexts.index(pretext) % len(COLOURS)], score, known.get(pretext))
            for pretext, score in scores.items()
        ]
    notes = ["skill_learned, 95 % interval; filled: learned", "0: the best rule without training, 1: perfect"]
    notes += ["cross: skill against the classic repair alone"] if classic else []
    below = any(dot.value < LOWEST for dots in groups.values() for dot in dots)
    notes += [f"triangle: below {LOWEST:g}"] if below else []
    figure = dots_figure(groups, f"What training added, on {images}", notes, LOWEST)
    figure.axes[0].axvline(0, color="0.4", linewidth=1, linestyle="--", zorder=0)
    return figure


def _dot(pretext: str, colour: str, score: Mapping[str, Any], classic: Mapping[str, Any] | None) -> Dot:
    ends = score["value"], score["low"], score["high"]
    return Dot(pretext, *ends, colour, filled=score["learned"], reference=None if classic is None else classic["value"])


def _stacked(legends: Sequence[Sequence[str]]) -> Figure:
    """Return a figure with a panel for each legend, one below the other."""
    above = [legend_height([short(name, NAME) for name in names], COLUMN - AXIS) for names in legends]
    figure = new_figure(COLUMN, sum(PANEL + height for height in above))
    figure.subplots(len(legends), 1, squeeze=False, sharex=True, height_ratios=[PANEL] * len(legends))
    return figure


def _losses(axes: Axes, train: Sequence[Record], names: Sequence[str], of_tasks: bool) -> None:
    for number, name in enumerate(names):
        points = [(r["images_seen"], found) for r in train if (found := r.get(f"loss.{name}")) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1.2, label=short(name, NAME), **line_style(number))
    if not of_tasks:
        axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_ylabel("loss (pretexts: / chance loss)" if of_tasks else "loss / chance loss", fontsize=TEXT)


def _scores(axes: Axes, kind: str, found: Sequence[Record], names: Sequence[str], images_per_step: float) -> None:
    """Draw the online probe's accuracies with the majority's, or the tasks' validation scores.

    Records of older runs have no `images_seen`, and the majority's accuracy under `chance`.
    """
    for task in sorted({task for r in found for task in r["tasks"]}):
        own = [r for r in found if task in r["tasks"]]
        style = line_style(names.index(task))
        places = [r.get("images_seen", r["step"] * images_per_step) for r in own]
        values = [r["tasks"][task]["knn"] if kind == "probe" else r["tasks"][task] for r in own]
        axes.plot(places, values, marker="o", markersize=2.5, linewidth=1.2, label=short(task, NAME), **style)
        if kind == "probe":
            majority = own[-1]["tasks"][task].get("majority", own[-1]["tasks"][task]["chance"])
            axes.axhline(majority, color=style["color"], linewidth=0.8, linestyle=":")
    label = "kNN accuracy, validation\n(dotted: majority)" if kind == "probe" else "score, validation images"
    axes.set_ylabel(label, fontsize=TEXT)
    axes.set_xlim(left=0)
    lowest, highest = axes.dataLim.intervaly
    if lowest >= 0 and highest <= 1:  # regression has other scores
        axes.set_ylim(0, 1)

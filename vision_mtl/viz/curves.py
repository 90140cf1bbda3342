"""Training curves of a run, and its skills with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLOURS, legend_above, new_figure, quiet, short, short_source

WIDTH = 3.5  # inches, a column of a paper
NAME = 44  # letters of a source's name
Record = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # source -> pretext -> score


def curves_figure(records: Sequence[Record]) -> Figure | None:
    """Draw losses against images seen, above online probe and validation scores if there are any.

    The width is that of a paper's column. `records` are the lines of `metrics.jsonl`. None without a training record.
    """
    train = [r for r in records if r.get("kind") == "train"]
    if not train:
        return None
    scored = [r for r in records if r.get("tasks")]  # a probe without labels has no scores
    panels = {kind: found for kind in ("probe", "validation") if (found := [r for r in scored if r["kind"] == kind])}
    figure = new_figure(WIDTH, 2.7 * (1 + len(panels)))
    axes = figure.subplots(1 + len(panels), 1, squeeze=False, sharex=True)[:, 0]
    _losses(quiet(axes[0]), train, of_tasks="validation" in panels)
    images_per_step = train[-1]["images_seen"] / train[-1]["step"]
    for place, (kind, found) in zip(axes[1:], panels.items(), strict=True):
        _scores(quiet(place), kind, found, images_per_step)
    axes[-1].set_xlabel("images seen", fontsize=8)
    return figure


def skill_figure(
    by_source: Scores, classic: Scores | None = None, names: Mapping[str, str] | None = None
) -> Figure | None:
    """Draw what training added for each source and pretext, a dot with its interval, open if it is not learned.

    `classic` are the skills against the classic repair alone, drawn as small grey crosses; `names` are shown instead of
    sources. None without a score.
    """
    pretexts = sorted({pretext for scores in by_source.values() for pretext in scores})
    if not pretexts:
        return None
    height = sum(len(scores) + 1 for scores in by_source.values())
    figure = new_figure(WIDTH, 1.6 + 0.19 * height)
    axes = quiet(figure.subplots())
    ticks: dict[int, str] = {}
    place = 0
    for source, scores in by_source.items():
        shown = short((names or {}).get(source, short_source(source)), NAME)
        axes.text(0.01, place, shown, transform=axes.get_yaxis_transform(), fontsize=7, color="0.35", va="center")
        for pretext, score in scores.items():
            place += 1
            ticks[place] = pretext
            colour = COLOURS[pretexts.index(pretext) % len(COLOURS)]
            _skill_row(axes, place, colour, score, (classic or {}).get(source, {}).get(pretext))
        place += 1
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axes.set_ylim(place - 0.3, -0.7)
    axes.tick_params(axis="x", labelsize=7)
    figure.suptitle("What training added on held-out images", fontsize=8, x=0.01, ha="left")
    note = "skill_learned with its 95 % interval; 0: the best rule without\nlearning, 1: perfect; filled: learned"
    note += "\ncross: skill against the classic repair alone" if classic else ""
    figure.supxlabel(note, fontsize=7, x=0.01, ha="left")
    return figure


def _skill_row(
    axes: Axes, place: int, colour: str, score: Mapping[str, Any], classic: Mapping[str, Any] | None
) -> None:
    """Draw a score as a dot with its interval, and the skill against the classic repair as a cross."""
    if score["low"] is not None:
        axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2)
    inside = colour if score["learned"] else "white"
    axes.plot(score["value"], place, "o", color=colour, markerfacecolor=inside, markersize=5)
    if classic is not None:
        axes.plot(classic["value"], place, "x", color="0.5", markersize=4)


def _losses(axes: Axes, train: Sequence[Record], of_tasks: bool) -> None:
    names = sorted({key for r in train for key in r if key.startswith("loss.")})
    for number, name in enumerate(names):
        points = [(r["images_seen"], r[name]) for r in train if r.get(name) is not None]
        axes.plot(
            *zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=short(name[5:])
        )
    if not of_tasks:
        axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_ylabel("loss (of pretexts: loss / chance loss)" if of_tasks else "loss / chance loss", fontsize=8)
    axes.tick_params(labelsize=8)
    legend_above(axes)


def _scores(axes: Axes, kind: str, found: Sequence[Record], images_per_step: float) -> None:
    """Draw the online probe's accuracies with the majority's, or the tasks' validation scores.

    Records of older runs have no `images_seen`, and the majority's accuracy under `chance`.
    """
    tasks = sorted({task for r in found for task in r["tasks"]})
    for number, task in enumerate(tasks):
        own = [r for r in found if task in r["tasks"]]
        colour = COLOURS[number % len(COLOURS)]
        places = [r.get("images_seen", r["step"] * images_per_step) for r in own]
        values = [r["tasks"][task]["knn"] if kind == "probe" else r["tasks"][task] for r in own]
        axes.plot(places, values, "o-", color=colour, markersize=3, label=short(task))
        if kind == "probe":
            majority = own[-1]["tasks"][task].get("majority", own[-1]["tasks"][task]["chance"])
            axes.axhline(majority, color=colour, linewidth=0.8, linestyle=":")
    label = "kNN accuracy, validation images\n(dotted: majority)" if kind == "probe" else "score, validation images"
    axes.set_ylabel(label, fontsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(top=1)
    axes.tick_params(labelsize=8)
    legend_above(axes)

"""Training curves of a run, and its skills with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLOURS, new_figure, quiet, short

Record = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # source -> pretext -> score


def curves_figure(records: Sequence[Record]) -> Figure | None:
    """Draw losses against images seen, next to online probe and validation scores if there are any.

    `records` are the lines of `metrics.jsonl`. None without a training record.
    """
    train = [r for r in records if r.get("kind") == "train"]
    if not train:
        return None
    scored = [r for r in records if r.get("tasks")]  # a probe without labels has no scores
    panels = {kind: found for kind in ("probe", "validation") if (found := [r for r in scored if r["kind"] == kind])}
    figure = new_figure(5 + 4 * len(panels), 3.4)
    axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    _losses(quiet(axes[0]), train, of_tasks="validation" in panels)
    seen = {r["step"]: r["images_seen"] for r in train}
    for place, (kind, found) in zip(axes[1:], panels.items(), strict=True):
        _scores(quiet(place), kind, found, seen)
    return figure


def skill_figure(by_source: Scores, classic: Scores | None = None) -> Figure | None:
    """Draw what training added for each source and pretext, a dot with its interval, open if it is not learned.

    `classic` are the skills against the classic repair alone, drawn as small grey crosses. None without a score.
    """
    rows = [(source, pretext, score) for source, scores in by_source.items() for pretext, score in scores.items()]
    if not rows:
        return None
    pretexts = sorted({pretext for _, pretext, _ in rows})
    figure = new_figure(6.5, 1.5 + 0.28 * len(rows))
    axes = quiet(figure.subplots())
    for place, (source, pretext, score) in enumerate(rows):
        colour = COLOURS[pretexts.index(pretext) % len(COLOURS)]
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2)
        inside = colour if score["learned"] else "white"
        axes.plot(score["value"], place, "o", color=colour, markerfacecolor=inside, markersize=6)
        other = (classic or {}).get(source, {}).get(pretext)
        if other is not None:
            axes.plot(other["value"], place, "x", color="0.5", markersize=5)
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{short(source)}  {pretext}" for source, pretext, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_title("What training added on held-out images", fontsize=9, loc="left")
    label = (
        "skill_learned, 95 % interval (0: best rule without learning, 1: perfect)\nfilled: learned; open: not learned"
    )
    axes.set_xlabel(label + ("; cross: skill against the classic repair alone" if classic else ""), fontsize=8)
    axes.tick_params(labelsize=8)
    return figure


def _losses(axes: Axes, train: Sequence[Record], of_tasks: bool) -> None:
    names = sorted({key for r in train for key in r if key.startswith("loss.")})
    for number, name in enumerate(names):
        points = [(r["images_seen"], r[name]) for r in train if r.get(name) is not None]
        axes.plot(
            *zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=short(name[5:])
        )
    if not of_tasks:
        axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_xlabel("images seen", fontsize=8)
    axes.set_ylabel("loss (of pretexts: loss / chance loss)" if of_tasks else "loss / chance loss", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False)


def _scores(axes: Axes, kind: str, found: Sequence[Record], seen: Mapping[int, int]) -> None:
    """Draw the online probe's accuracies with chance level, or the tasks' validation scores."""
    tasks = sorted({task for r in found for task in r["tasks"]})
    for number, task in enumerate(tasks):
        rows = [(seen.get(r["step"], r["step"]), r["tasks"][task]) for r in found if task in r["tasks"]]
        colour = COLOURS[number % len(COLOURS)]
        values = [score["knn"] if kind == "probe" else score for _, score in rows]
        axes.plot([place for place, _ in rows], values, "o-", color=colour, markersize=3, label=short(task))
        if kind == "probe":
            axes.axhline(rows[-1][1]["chance"], color=colour, linewidth=0.8, linestyle=":")
    label = "kNN accuracy on validation images (dotted: chance)" if kind == "probe" else "score on validation images"
    axes.set_xlabel("images seen", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(top=1)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False)

"""Curves of a run and its skills with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLOURS, new_figure, quiet

Record = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # source -> pretext -> score


def curves_figure(records: Sequence[Record]) -> Figure | None:
    """Loss by pretext against images seen, and the online probe if there was one; None without a training record."""
    train = [r for r in records if r.get("kind") == "train"]
    probes = [r for r in records if r.get("kind") == "probe"]
    if not train:
        return None
    figure = new_figure(9 if probes else 5, 3.4)
    axes = figure.subplots(1, 2 if probes else 1, squeeze=False)[0]
    _losses(quiet(axes[0]), train)
    if probes:
        seen = {r["step"]: r["images_seen"] for r in train}
        _probes(quiet(axes[1]), probes, seen)
    return figure


def skill_figure(by_source: Scores, untrained: Scores | None = None) -> Figure | None:
    """A dot with its interval for each source and pretext, a ring where it stood untrained; None without a score."""
    rows = [(source, pretext, score) for source, scores in by_source.items() for pretext, score in scores.items()]
    if not rows:
        return None
    pretexts = sorted({pretext for _, pretext, _ in rows})
    figure = new_figure(6.5, 1.2 + 0.28 * len(rows))
    axes = quiet(figure.subplots())
    for place, (source, pretext, score) in enumerate(rows):
        colour = COLOURS[pretexts.index(pretext) % len(COLOURS)]
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(score["value"], place, "o", color=colour, markersize=5)
        before = (untrained or {}).get(source, {}).get(pretext)
        if before is not None:
            axes.plot(before["value"], place, "o", color=colour, markersize=6, fillstyle="none")
    axes.axvline(0, color="0.4", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [f"{source}  {pretext}" for source, pretext, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "skill on held-out images, 95 % interval (0: classic repair, 1: perfect; ring: untrained)", fontsize=8
    )
    axes.tick_params(labelsize=8)
    return figure


def _losses(axes: Axes, train: Sequence[Record]) -> None:
    names = sorted({key for r in train for key in r if key.startswith("loss.")})
    for number, name in enumerate(names):
        points = [(r["images_seen"], r[name]) for r in train if r.get(name) is not None]
        axes.plot(*zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=name[5:])
    axes.axhline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_xlabel("images seen", fontsize=8)
    axes.set_ylabel("loss / chance loss", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False)


def _probes(axes: Axes, probes: Sequence[Record], seen: Mapping[int, int]) -> None:
    tasks = sorted({task for r in probes for task in r["tasks"]})
    for number, task in enumerate(tasks):
        rows = [r for r in probes if task in r["tasks"]]
        colour = COLOURS[number % len(COLOURS)]
        places = [seen.get(r["step"], r["step"]) for r in rows]
        axes.plot(places, [r["tasks"][task]["knn"] for r in rows], "o-", color=colour, markersize=3, label=task)
        axes.axhline(rows[-1]["tasks"][task]["chance"], color=colour, linewidth=0.8, linestyle=":")
    axes.set_xlabel("images seen", fontsize=8)
    axes.set_ylabel("kNN accuracy on validation images (dotted: chance)", fontsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, frameon=False)

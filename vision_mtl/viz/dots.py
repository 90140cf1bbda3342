"""Dot plots: a named row for each score, a dot with its interval, in groups below their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision_mtl.viz.style import COLUMN, TEXT, TITLE, new_figure, quiet, short, wrapped

ROW = 0.16  # inches
AROUND = 0.9  # inches of the axis, the title and one line of notes
GROUP, LABEL = 44, 22  # letters of a group's and a row's name


@dataclass(frozen=True)
class Dot:
    """A score with the ends of its interval or None; `reference` is drawn as a grey cross."""

    label: str
    value: float
    low: float | None
    high: float | None
    colour: str
    marker: str = "o"
    filled: bool = True
    reference: float | None = None


def dots_figure(
    groups: Mapping[str, Sequence[Dot]], title: str, notes: Sequence[str], lowest: float | None = None
) -> Figure:
    """Draw the groups below each other; values below `lowest` are drawn there as a triangle that points left."""
    rows = sum(len(dots) + 1 for dots in groups.values())
    figure = new_figure(COLUMN, AROUND + 0.12 * len(notes) + ROW * rows)
    axes = quiet(figure.subplots())
    ticks: dict[int, str] = {}
    names: dict[int, str] = {}
    place = 0
    for name, dots in groups.items():
        names[place] = short(name, GROUP)
        for dot in dots:
            place += 1
            ticks[place] = short(dot.label, LABEL)
            _draw(axes, place, dot, lowest)
        place += 1
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=TEXT)
    axes.set_ylim(place - 0.3, -0.7)
    for row, name in names.items():
        name_row(axes, row, name)
    figure.suptitle(wrapped(title, COLUMN, TITLE), fontsize=TITLE, x=0.01, ha="left")
    figure.supxlabel("\n".join(notes), fontsize=TEXT, x=0.01, ha="left")
    return figure


def name_row(axes: Axes, row: float, name: str) -> None:
    """Write a name at the left of a row on white, because a vertical line may be behind it."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    where = axes.get_yaxis_transform()
    axes.text(0.01, row, name, transform=where, fontsize=TEXT, va="center", zorder=5, bbox=paper, color="0.2")


def _draw(axes: Axes, place: int, dot: Dot, lowest: float | None) -> None:
    floor = -float("inf") if lowest is None else lowest
    if dot.low is not None and dot.high is not None and dot.high > floor:
        axes.plot([max(dot.low, floor), dot.high], [place, place], color=dot.colour, linewidth=1.8)
    marker = dot.marker if dot.value >= floor else "<"
    face = dot.colour if dot.filled else "white"
    axes.plot(max(dot.value, floor), place, marker, color=dot.colour, markerfacecolor=face, markersize=4.5)
    if dot.reference is not None and dot.reference >= floor:
        axes.plot(dot.reference, place, "x", color="0.5", markersize=4)

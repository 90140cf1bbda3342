"""The style of all figures: no window, axes without a box, colours for colour-blind readers, sizes for paper.

A chart is as wide as a paper's column (`COLUMN`) or page (`PAGE`), so its text has the size in points that it has in
print: `TEXT`, and `TITLE` for titles. Pictures of pixels have other widths, and are shown on screens.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

rcParams["text.parse_math"] = False  # names of classes and files may contain $

# Okabe and Ito, "Color universal design", 2008, without yellow, which is pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")  # after the last colour, colours repeat in the next line style
COLUMN, PAGE = 3.3, 6.9  # inches: the widths of a paper's column and page
TEXT, TITLE = 7, 8  # points
PANEL = 1.9  # inches: the height of one of several panels below each other
AXIS = 0.5  # inches of the label and numbers at the left
NAME = 40  # letters of a name in a legend
LETTER = 0.054  # inches of an average letter at TEXT points
LINE = 0.15  # inches between lines at TEXT points
ENTRY = 0.32  # inches of a legend's entry beside its name
CHART_DPI, PICTURE_DPI = 300, 150


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed", "none"] = "constrained"
) -> Figure:
    """Return an empty figure of `width` x `height` inches that needs no display.

    `constrained` arranges its axes, `compressed` those of pictures, without white space between them.
    """
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def short(name: str, letters: int = 48) -> str:
    """Return a name on one line of at most `letters`, with characters that have no picture as escapes.

    A longer name is cut in its middle: names of one folder often differ at their ends only.
    """
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)
    if len(line) <= letters:
        return line
    tail = (letters - 1) // 3
    return f"{line[: letters - 1 - tail]}…{line[len(line) - tail :]}"


def line_style(number: int) -> dict[str, Any]:
    """Return the colour and line style of curve `number`: 28 are distinct."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


def save_chart(figure: Figure | None, folder: Path, name: str) -> None:
    """Save a chart as NAME.png and, for papers, as NAME.pdf; nothing for None."""
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=CHART_DPI)
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})


def save_pictures(figure: Figure | None, folder: Path, name: str) -> None:
    """Save pictures of pixels as NAME.png; nothing for None."""
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=PICTURE_DPI)


def wrapped(text: str, width: float, points: float = TEXT) -> str:
    """Return the text in lines that fit into `width` inches."""
    letters = math.floor(width / (LETTER * points / TEXT))
    return "\n".join(textwrap.fill(short(line, 200), letters) for line in text.split("\n"))


def legend_columns(names: Sequence[str], width: float) -> int:
    """Return the largest number of a legend's columns that fit into `width` inches."""
    for columns in range(len(names), 1, -1):
        longest = [max(map(len, column)) for column in np.array_split(names, columns)]  # as matplotlib fills them
        if sum(ENTRY + LETTER * letters for letters in longest) <= width:
            return columns
    return 1


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the height in inches of a legend of `width` inches."""
    return LINE * math.ceil(len(names) / legend_columns(names, width))


def legend_above(axes: Axes, width: float, title: str | None = None, without: Sequence[str] = ()) -> None:
    """Put the legend above the axes, where it hides no line, in as many columns as fit into `width` inches."""
    found = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in found if name not in without]
    handles = [found[name] for name in names]
    if handles:
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=legend_columns(names, width),
                    borderaxespad=0.2, title=title, title_fontsize=TITLE, alignment="left", **_COMPACT)  # fmt: skip


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Put the legend below all axes, in as many columns as fit into the figure."""
    columns = legend_columns(names, figure.get_figwidth())
    figure.legend(handles, names, loc="outside lower center", ncols=columns, **_COMPACT)


def quiet(axes: Axes) -> Axes:
    """Remove the box around the axes and set the size of their numbers; return them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT)
    return axes


_COMPACT: dict[str, Any] = {
    "fontsize": TEXT,
    "frameon": False,
    "handlelength": 1.6,
    "handletextpad": 0.5,
    "columnspacing": 0.8,
}

"""The style of all figures: no window, axes without a box, colours for colour-blind readers."""

from __future__ import annotations

from typing import Literal

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

rcParams["text.parse_math"] = False  # names of classes and files may contain $

# Okabe and Ito, "Color universal design", 2008, without yellow, which is pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """Return an empty figure of `width` x `height` inches that needs no display; `constrained` arranges its axes."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def short(name: str, letters: int = 48) -> str:
    """Return a name on one line, with characters that have no picture as escapes, and cut after `letters`."""
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in name)
    return line if len(line) <= letters else f"{line[: letters - 1]}…"


def quiet(axes: Axes) -> Axes:
    """Remove the box around the axes; return them."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes

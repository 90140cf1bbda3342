"""One look for every figure: a figure without a window, quiet axes, colours that colour-blind readers tell apart."""

from __future__ import annotations

from typing import Literal

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

rcParams["text.parse_math"] = False  # names of classes and files are text: a $ in one is no formula, and no error

# Okabe and Ito, "Color universal design", 2008, without yellow, which is pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """An empty figure of `width` x `height` inches that needs no display and, if `constrained`, lays itself out."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def quiet(axes: Axes) -> Axes:
    """Axes without the box."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes

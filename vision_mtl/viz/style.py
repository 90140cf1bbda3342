"""The style of all figures: no window, axes without a box, colours for colour-blind readers."""

from __future__ import annotations

from pathlib import Path
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


def short_source(name: str) -> str:
    """Return a source's name without the folders in the middle of its path."""
    kind, *rest = [part for part in name.split("/") if part]
    return "/".join([kind, *(["…"] if len(rest) > 2 else []), *rest[-2:]])


def save_chart(figure: Figure | None, folder: Path, name: str) -> None:
    """Save a chart as NAME.png and, for papers, as NAME.pdf; nothing for None."""
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=200)
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})


def legend_above(axes: Axes) -> None:
    """Put the legend above the axes, where it hides no line."""
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2,
                handlelength=1.2, columnspacing=0.9)  # fmt: skip


def quiet(axes: Axes) -> Axes:
    """Remove the box around the axes; return them."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes

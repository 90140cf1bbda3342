"""Skill maps: the skill of every cell of every grid, drawn over example images."""
# H W pixels, C channels, r c rows and columns of a grid

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from vision_mtl.viz.style import PAGE, TEXT, TITLE, legend_below, new_figure, wrapped

PALETTE = "RdBu"  # red: worse than the best rule; blue: better
OPACITY = 0.6  # of the colours over the picture
PICTURE, LABELS, BAR = (
    1.5,
    1.0,
    0.8,
)  # inches: largest width of a picture, widths of the names at the left, of the colour bar
NUMBERED = 16  # largest number of cells of a grid with numbers; larger grids have only colours
DARK = 0.35  # distance from the palette's middle beyond which numbers are white
LIMITS = 0.1, 0.6  # smallest and largest skill at the palette's ends
MARKS = {"learnable": "o", "trivial": "x"}  # hopeless cells have none


@dataclass(frozen=True)
class SkillMap:
    """A picture (H, W, C) in [0, 1] and, for each grid, skills (r, c), NaN for none, and kinds (r, c) or None."""

    label: str
    picture: np.ndarray
    skills: Sequence[np.ndarray]
    kinds: Sequence[np.ndarray | None]


def skill_maps_figure(maps: Sequence[SkillMap], title: str) -> Figure | None:
    """Draw a row per picture and a column per grid; None without a map."""
    if not maps or not maps[0].skills:
        return None
    grids = [f"{len(skill)} x {skill.shape[1]}" for skill in maps[0].skills]
    height, width = maps[0].picture.shape[:2]
    picture = min(PICTURE, (PAGE - LABELS - BAR) / len(grids))
    page = LABELS + picture * len(grids) + BAR, 0.9 + picture * height / width * len(maps)
    figure = new_figure(*page, layout="compressed")
    axes = figure.subplots(len(maps), len(grids), squeeze=False)
    found = np.concatenate([skill.ravel() for one in maps for skill in one.skills])
    limit = float(np.clip(np.nanquantile(np.abs(found), 0.95) if np.isfinite(found).any() else 0, *LIMITS))
    colours = ScalarMappable(Normalize(-limit, limit), matplotlib.colormaps[PALETTE])
    for row, one in zip(axes, maps, strict=True):
        for place, skill, kind in zip(row, one.skills, one.kinds, strict=True):
            _draw_map(place, one.picture, skill, kind, colours)
        row[0].set_yticks([(one.picture.shape[0] - 1) / 2], [wrapped(one.label, LABELS - 0.25)], fontsize=TEXT)
    for place, grid in zip(axes[0], grids, strict=True):
        place.set_title(grid, fontsize=TEXT)
    bar = figure.colorbar(colours, ax=axes, fraction=0.02, pad=0.02, extend="both")
    separator = "\n" if len(maps) == 1 else " "  # a single row is not high enough for the label in one line
    bar.set_label(f"skill (0: best rule{separator}without a network,{separator}1: perfect)", fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    figure.suptitle(wrapped(title, page[0], TITLE), fontsize=TITLE, x=0.01, ha="left")
    if any(kind is not None for one in maps for kind in one.kinds):
        _legend(figure)
    return figure


def _draw_map(
    axes: Axes, picture: np.ndarray, skill: np.ndarray, kind: np.ndarray | None, colours: ScalarMappable
) -> None:
    height, width = picture.shape[:2]
    grey = picture.mean(-1, keepdims=True).repeat(3, -1)
    axes.imshow(0.25 + 0.6 * grey, interpolation="none", vmin=0, vmax=1)
    for r, c in np.ndindex(skill.shape):
        across, down = width / skill.shape[1], height / skill.shape[0]  # pixels of one cell
        left, top = c * across - 0.5, r * down - 0.5
        known = bool(np.isfinite(skill[r, c]))
        face = (*colours.to_rgba(skill[r, c])[:3], OPACITY) if known else "none"
        axes.add_patch(Rectangle((left, top), across, down, facecolor=face, edgecolor="white", linewidth=0.6))
        dark = known and np.abs(np.asarray(colours.norm(skill[r, c]), float) - 0.5) > DARK
        ink = "white" if dark else "black"
        mark = str(kind[r, c]) if kind is not None else ""
        _mark(axes, (left + across / 2, top + down / 2), float(skill[r, c]), mark, skill.size, height, ink)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _mark(axes: Axes, middle: tuple[float, float], skill: float, kind: str, cells: int, height: int, ink: str) -> None:
    """Draw the skill as a number in large cells, and the kind's mark below; `height` is the picture's in pixels."""
    x, y = middle
    numbered = cells <= NUMBERED and np.isfinite(skill)
    if numbered:
        axes.text(x, y, _number(skill), ha="center", va="center", fontsize=TEXT, color=ink)
    if kind in MARKS:
        below = 0.3 * height / cells**0.5 if numbered else 0.0
        size = 2.5 if cells > NUMBERED else 3.5
        colour = "black" if kind == "trivial" else ink
        axes.plot(x, y + below, MARKS[kind], color=colour, markersize=size, markeredgewidth=0.8)


def _legend(figure: Figure) -> None:
    handles = [Line2D([], [], marker=mark, linestyle="none", color="black", markersize=4) for mark in MARKS.values()]
    handles.append(Line2D([], [], linestyle="none"))
    legend_below(figure, handles, [*MARKS, "no mark: hopeless"])


def _number(skill: float) -> str:
    """Return a skill with two digits and without the zero before the point, which leaves room in a cell."""
    return f"{skill:+.2f}".replace("0.", ".", 1) if abs(skill) < 1 else f"{skill:+.1f}"

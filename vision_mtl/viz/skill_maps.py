"""Where in the picture damage can be repaired: the skill of every cell of every grid, laid over pictures."""
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

from vision_mtl.viz.style import new_figure

PALETTE = "RdBu"  # red: worse than the best rule; blue: better
OPACITY = 0.6  # of the colours over the picture
SIDE, LABELS = 1.45, 1.5  # inches of a picture, and of the names at the left
NUMBERED = 16  # cells; a grid of more has colours only
DARK = 0.35  # of the palette's half: colours beyond it carry white figures
LIMITS = 0.1, 0.6  # skills that the palette's ends may stand for, whatever was found
MARKS = {"learnable": "o", "trivial": "x"}  # hopeless cells have none


@dataclass(frozen=True)
class SkillMap:
    """`picture` (H, W, C) in [0, 1]; for each grid skills (r, c), NaN where there is none, and kinds (r, c) or None."""

    label: str
    picture: np.ndarray
    skills: Sequence[np.ndarray]
    kinds: Sequence[np.ndarray | None]


def skill_maps_figure(maps: Sequence[SkillMap], title: str) -> Figure | None:
    """A row for each picture, a column for each grid; None without a map."""
    if not maps or not maps[0].skills:
        return None
    grids = [f"{len(skill)} x {skill.shape[1]}" for skill in maps[0].skills]
    height, width = maps[0].picture.shape[:2]
    figure = new_figure(LABELS + SIDE * len(grids) + 0.9, 0.7 + SIDE * height / width * len(maps) + 0.3)
    axes = figure.subplots(len(maps), len(grids), squeeze=False)
    found = np.concatenate([skill.ravel() for one in maps for skill in one.skills])
    limit = float(np.clip(np.nanquantile(np.abs(found), 0.95) if np.isfinite(found).any() else 0, *LIMITS))
    colours = ScalarMappable(Normalize(-limit, limit), matplotlib.colormaps[PALETTE])
    for row, one in zip(axes, maps, strict=True):
        for place, skill, kind in zip(row, one.skills, one.kinds, strict=True):
            _draw_map(place, one.picture, skill, kind, colours)
        row[0].set_yticks([(one.picture.shape[0] - 1) / 2], [one.label], fontsize=8)
    for place, grid in zip(axes[0], grids, strict=True):
        place.set_title(grid, fontsize=8)
    bar = figure.colorbar(colours, ax=axes, fraction=0.02, pad=0.02, extend="both")
    broken = "\n" if len(maps) == 1 else " "  # beside one row there is no room for one line
    bar.set_label(f"skill (0: best rule{broken}without a network,{broken}1: perfect)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
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
    """The skill in figures where there is room, and under it the kind's mark; `height` in pixels of the picture."""
    x, y = middle
    numbered = cells <= NUMBERED and np.isfinite(skill)
    if numbered:
        axes.text(x, y, f"{skill:+.2f}", ha="center", va="center", fontsize=6 if cells > 9 else 7, color=ink)
    if kind in MARKS:
        below = 0.3 * height / cells**0.5 if numbered else 0.0
        size = 2.5 if cells > NUMBERED else 3.5
        colour = "black" if kind == "trivial" else ink
        axes.plot(x, y + below, MARKS[kind], color=colour, markersize=size, markeredgewidth=0.8)


def _legend(figure: Figure) -> None:
    handles = [Line2D([], [], marker=mark, linestyle="none", color="black", markersize=4) for mark in MARKS.values()]
    handles.append(Line2D([], [], linestyle="none"))
    names = [*MARKS, "no mark: hopeless"]
    figure.legend(handles, names, fontsize=8, frameon=False, loc="outside lower center", ncols=3)

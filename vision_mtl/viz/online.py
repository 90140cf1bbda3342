"""What a bandit over damages did: how often each was drawn, and how well it was repaired, over training."""
# rows are mappings of plain values

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vision_mtl.viz.style import COLOURS, new_figure, quiet

LINES = ("-", "--", ":", "-.")
LOWEST = -1.0  # skill that is still shown: a network may start far below, which would flatten all that follows
HIGHEST = 1.05  # a perfect skill, and its margin
COLUMNS, LONG = (5, 3), 4  # of a legend: for scales, and for names of more letters than these


def online_figure(rows: Sequence[Mapping[str, Any]], base: Mapping[tuple[str, str], float]) -> Figure:
    """A column for each pretext, a line for each damage: above its share of the images, in per cent, below its skill.

    `base` maps (pretext, damage) to its share in the mixture, drawn dashed.
    """
    pretexts = list(dict.fromkeys(row["pretext"] for row in rows))
    figure = new_figure(0.8 + 3.0 * len(pretexts), 5.0)
    shares, skills = figure.subplots(2, len(pretexts), squeeze=False, sharex=True)
    for above, below, pretext in zip(shares, skills, pretexts, strict=True):
        own = [row for row in rows if row["pretext"] == pretext]
        names = list(dict.fromkeys(row["damage"] for row in own))
        for number, name in enumerate(names):
            _course(quiet(above), quiet(below), [row for row in own if row["damage"] == name], number)
        for share in {round(100 * base[pretext, name], 6) for name in names}:
            above.axhline(share, color="0.4", linewidth=1, linestyle="--")
        below.axhline(0, color="0.4", linewidth=1, linestyle="--")
        _dress(above, below, pretext, COLUMNS[max(map(len, names)) > LONG])
    shares[0].set_ylabel("share of the images, %\n(dashed: without the bandit)", fontsize=8)
    skills[0].set_ylabel("skill on validation images\n(0: untrained, 1: perfect)", fontsize=8)
    return figure


def _course(above: Axes, below: Axes, rows: Sequence[Mapping[str, Any]], number: int) -> None:
    style: dict[str, Any] = {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
        "linewidth": 1.2,
    }
    seen = [row["images_seen"] for row in rows]
    # a share holds until the next update; the last one is drawn for no image
    above.plot(seen, [100 * row["share"] for row in rows], drawstyle="steps-post", label=rows[0]["damage"], **style)
    below.plot(seen, [row["skill"] for row in rows], **style)


def _dress(above: Axes, below: Axes, pretext: str, columns: int) -> None:
    above.set_ylim(bottom=0)
    above.set_xlim(left=0)
    above.xaxis.set_major_locator(MaxNLocator(4))
    lowest, highest = below.get_ylim()
    below.set_ylim(max(LOWEST, lowest), min(HIGHEST, highest))
    below.set_xlabel("images seen", fontsize=8)
    spacing: dict[str, Any] = {"columnspacing": 1.0, "handlelength": 1.4, "handletextpad": 0.4, "borderaxespad": 0.2}
    where: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (0, 1),
        "alignment": "left",
    }  # beside the lines, not over them
    above.legend(title=pretext, title_fontsize=9, fontsize=7, frameon=False, ncols=columns, **where, **spacing)
    for axes in (above, below):
        axes.tick_params(labelsize=8)

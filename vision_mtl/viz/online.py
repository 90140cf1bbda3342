"""A bandit over damages: each damage's share of the images and its skill over training."""
# rows are mappings of plain values

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vision_mtl.viz.style import AXIS, COLUMN, TEXT, legend_above, legend_height, line_style, new_figure, quiet

PANEL = 1.6  # inches
LOWEST = -1.0  # smallest skill shown: an early network may be far below, which would flatten the rest
HIGHEST = 1.05  # perfect skill and a margin


def online_figure(rows: Sequence[Mapping[str, Any]], base: Mapping[tuple[str, str], float]) -> Figure:
    """Draw each damage's share of the images in per cent, and its skill below, two panels per pretext.

    `base` maps (pretext, damage) to its share in the mixture, drawn dashed.
    """
    names: dict[str, list[str]] = {}
    for row in rows:
        own = names.setdefault(row["pretext"], [])
        own += [] if row["damage"] in own else [row["damage"]]
    legends = sum(legend_height(damages, COLUMN - AXIS) for damages in names.values())
    figure = new_figure(COLUMN, (2 * PANEL + 0.2) * len(names) + legends)
    axes = figure.subplots(2 * len(names), 1, squeeze=False, sharex=True)[:, 0]
    for above, below, (pretext, damages) in zip(axes[::2], axes[1::2], names.items(), strict=True):
        for number, name in enumerate(damages):
            own_rows = [row for row in rows if row["pretext"] == pretext and row["damage"] == name]
            _curves(quiet(above), quiet(below), own_rows, number)
        for share in {round(100 * base[pretext, name], 6) for name in damages}:
            above.axhline(share, color="0.4", linewidth=1, linestyle="--")
        below.axhline(0, color="0.4", linewidth=1, linestyle="--")
        _dress(above, below, pretext)
    axes[-1].set_xlabel("images seen", fontsize=TEXT)
    return figure


def _curves(above: Axes, below: Axes, rows: Sequence[Mapping[str, Any]], number: int) -> None:
    style: dict[str, Any] = {"linewidth": 1.2, **line_style(number)}
    seen = [row["images_seen"] for row in rows]
    # a share is valid until the next update; no image used the last one
    above.plot(seen, [100 * row["share"] for row in rows], drawstyle="steps-post", label=rows[0]["damage"], **style)
    below.plot(seen, [row["skill"] for row in rows], **style)


def _dress(above: Axes, below: Axes, pretext: str) -> None:
    above.set_ylim(bottom=0)
    above.set_xlim(left=0)
    above.xaxis.set_major_locator(MaxNLocator(4))
    lowest, highest = below.get_ylim()
    below.set_ylim(max(LOWEST, lowest), min(HIGHEST, highest))
    above.set_ylabel("share of the images, %\n(dashed: no bandit)", fontsize=TEXT)
    below.set_ylabel("skill, validation (0:\nuntrained, 1: perfect)", fontsize=TEXT)
    legend_above(above, COLUMN - AXIS, title=pretext)

"""The best and the worst repaired instances side by side, from a discovery's scores."""
# n scored images, D damages, k instances shown, H W pixels, C channels

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vision_mtl.core.sums import divide
from vision_mtl.discovery.kinds import best_rules
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, one_damage
from vision_mtl.inference.pictures import repair_rows
from vision_mtl.viz.reconstruction import Panel, reconstruction_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SHOWN = 5  # of the best, and of the worst


def extremes_figure(networks: Sequence[ScoredNetwork], errors: Sequence[DamageErrors]) -> Figure | None:
    """A panel for each pretext that repairs pixels: its best instances, then its worst; None without one.

    `networks[f]` was fitted to fold f, so it repairs images of the other.
    """
    pretexts = networks[0].mixture.pretexts
    panels = [_panel(networks, own) for own in errors if pretexts[own.pretext].repairs]
    return reconstruction_figure(panels) if panels else None


def extreme_instances(errors: DamageErrors, count: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(row, damage) of the `count` instances of most skill, then of least, best first; and all skills (n, D).

    Every image at most once, and only where the best rule errs more than it does on half of the images: an easy
    instance says little.
    """
    reference = best_rules(errors, np.ones(len(errors.index), bool))[1]
    skill = 1 - divide(errors.model, reference)
    hard = np.isfinite(skill) & (reference >= np.median(reference, axis=0))
    pairs = [np.unravel_index(place, skill.shape) for place in np.argsort(-skill, axis=None) if hard.flat[place]]
    half = min(count, len({row for row, _ in pairs}) // 2)
    best = _of_distinct_images(pairs, half, set())
    worst = _of_distinct_images(pairs[::-1], half, {row for row, _ in best})
    return [*best, *worst[::-1]], skill


def _of_distinct_images(pairs: Sequence[tuple[int, int]], count: int, taken: set[int]) -> list[tuple[int, int]]:
    found: dict[int, int] = {}
    for row, damage in pairs:
        if len(found) < count and row not in taken:
            found.setdefault(int(row), int(damage))
    return list(found.items())


def _panel(networks: Sequence[ScoredNetwork], errors: DamageErrors) -> Panel:
    chosen, skill = extreme_instances(errors, NUM_SHOWN)
    columns: list[list[tuple[str, np.ndarray]]] = []
    for row, damage in chosen:
        network, index = networks[1 - errors.fold[row]], torch.tensor([errors.index[row]])
        images = network.images(index)
        part, damaged = one_damage(network.mixture, errors.pretext, damage, images, index)
        columns.append(repair_rows(part, damaged, network.predict(part, damaged)))
    labels = [label for label, _ in columns[0]]
    rows = [(label, np.concatenate([column[k][1] for column in columns])) for k, label in enumerate(labels)]
    captions = [f"{errors.damages[damage]}\n{skill[row, damage]:+.2f}" for row, damage in chosen]
    return Panel(f"{errors.pretext}: best repaired (left) and worst (right), skill below", rows, captions)

"""Figure of the best and the worst repaired instances of a discovery."""
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

NUM_SHOWN = 4  # of the best, and of the worst


def extremes_figure(networks: Sequence[ScoredNetwork], errors: Sequence[DamageErrors]) -> Figure | None:
    """Return a figure with a panel per pretext that repairs pixels: best instances, then worst; None without one.

    `networks[f]` was trained on fold f, so it repairs the images of the other fold.
    """
    pretexts = networks[0].mixture.pretexts
    panels = [_panel(networks, own) for own in errors if pretexts[own.pretext].repairs]
    return reconstruction_figure(panels) if panels else None


def extreme_instances(errors: DamageErrors, count: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Return (row, damage) of the `count` instances with the highest skill and the lowest, and all skills (n, D).

    Best first. An image appears at most once, and only where the best rule's error is at least its median over images:
    on easy instances, skill says little.
    """
    reference = best_rules(errors)[1]
    skill = 1 - divide(errors.model, reference)
    hard = np.isfinite(skill) & (reference >= np.median(reference, axis=0))
    pairs = [np.unravel_index(place, skill.shape) for place in np.argsort(-skill, axis=None) if hard.flat[place]]
    half = min(count, len({row for row, _ in pairs}) // 2)
    best = _of_distinct_images(pairs, half, set())
    worst = _of_distinct_images(pairs[::-1], half, {row for row, _ in best})
    return [*best, *worst[::-1]], skill


def _of_distinct_images(pairs: Sequence[tuple[int, int]], count: int, excluded: set[int]) -> list[tuple[int, int]]:
    found: dict[int, int] = {}
    for row, damage in pairs:
        if len(found) < count and row not in excluded:
            found.setdefault(int(row), int(damage))
    return list(found.items())


def _panel(networks: Sequence[ScoredNetwork], errors: DamageErrors) -> Panel:
    chosen, skill = extreme_instances(errors, NUM_SHOWN)
    columns: list[list[tuple[str, np.ndarray]]] = []
    for row, damage in chosen:
        network, index = networks[1 - errors.fold[row]], torch.tensor([errors.index[row]])
        images = network.images(index)
        part, damaged = one_damage(network.mixture, errors.pretext, damage, images, index)
        with network.evaluating():
            columns.append(repair_rows(part, damaged, network.predict(part, damaged), network.pool.rgb_bands))
    labels = [label for label, _ in columns[0]]
    rows = [(label, np.concatenate([column[k][1] for column in columns])) for k, label in enumerate(labels)]
    captions = [f"{errors.damages[damage]}\n{skill[row, damage]:+.2f}" for row, damage in chosen]
    return Panel(f"{errors.pretext}: best repaired (left) and worst (right), skill below", rows, captions)

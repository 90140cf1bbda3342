"""Skill during training, measured a few times on a sample of the images that are scored at the end."""
# n images, D damages

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vision_mtl.discovery.kinds import best_rules
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork, damage_names, model_errors, scored_shares

Scales = dict[str, dict[str, float]]  # pretext -> scale -> error


def errors_by_scale(network: ScoredNetwork, indices: Tensor) -> Scales:
    """The network's total error on the images `indices` (n,), with damages weighted by their shares."""
    found = {}
    for name, pretext in network.mixture.pretexts.items():
        names, shares = damage_names(pretext, network.pool.shape), scored_shares(pretext, network.pool.shape)
        totals = model_errors(network, name, indices).sum(0)  # (D,)
        found[name] = _by_scale(totals * shares, [damage.partition("/")[0] for damage in names])
    return found


def skill_over_time(
    records: Sequence[Sequence[Mapping[str, Any]]], scored: Sequence[Tensor], errors: Sequence[DamageErrors]
) -> list[dict[str, Any]]:
    """Return rows of pretext, scale, images_seen, seconds and skill over both folds, in order of time.

    `records` are each fold's records of `kind` skill (`images_seen`, `seconds`, `errors`), `scored` the images (n,)
    that they measured. The reference is the best rule for each source and damage on all scored images.
    """
    chosen = np.concatenate([part.numpy() for part in scored])
    reference: Scales = {}
    for own in errors:
        best = best_rules(own)[1][np.isin(own.index, chosen)]
        reference[own.pretext] = _by_scale(best.sum(0) * own.shares, own.scales)
    found = []
    for together in zip(*records, strict=False):  # the same milestone of both folds
        for pretext, scales in reference.items():
            for scale, total in scales.items():
                error = sum(record["errors"][pretext][scale] for record in together)
                row = {key: float(np.mean([r[key] for r in together])) for key in ("images_seen", "seconds")}
                found.append({"pretext": pretext, "scale": scale, **row, "skill": 1 - error / total if total else None})
    return found


def _by_scale(values: np.ndarray, scales: Sequence[str]) -> dict[str, float]:
    found = dict.fromkeys(scales, 0.0)
    for value, scale in zip(values.tolist(), scales, strict=True):
        found[scale] += value
    return found

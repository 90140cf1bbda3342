"""Holm's correction for a family of comparisons: it bounds the probability of any false verdict by alpha.

Holm, "A simple sequentially rejective multiple test procedure", 1979, https://www.jstor.org/stable/4615733. The m
comparisons are ranked by the evidence of their intervals. Rank k (1 is the strongest) uses the interval of level
1 - alpha / (m - k + 1), up to the first that contains 0; the rest use the level of that one, so they contain 0 too, and
the verdicts are Holm's. The bound holds under any dependence of the comparisons. It does not say that all m intervals
contain their true values at once; intervals of level 1 - alpha / m would (Bonferroni).

`equivalent` is a second claim, and has Holm's procedure of its own: the comparisons are ranked by the alpha at which
their interval just lies within the rope. What neither helps nor hurts is judged by the wider of the intervals of both
procedures. So any `helps` or `hurts` without a true difference has a probability of at most alpha in the family, and
any `equivalent` with a true difference beyond the rope one of at most alpha / 2, because only one end can be wrong.
`within_rope` of what helps or hurts is the same claim, and is judged alike.
"""
# m comparisons

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vision_mtl.evaluation.comparisons import Comparison
from vision_mtl.evaluation.power import ALPHA
from vision_mtl.evaluation.sign_flip import sign_flip_floor


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return adjusted p-values (..., m); those of at most alpha are Holm's rejections at alpha.

    Raises `ValueError` for a p-value outside [0, 1].
    """
    p_values = np.asarray(p_values, np.float64)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1]; found {p_values}")
    order = np.argsort(p_values, axis=-1, kind="stable")
    multiples = np.arange(p_values.shape[-1], 0, -1)  # m, m - 1, ... 1
    stepped = np.maximum.accumulate(np.take_along_axis(p_values, order, -1) * multiples, axis=-1)
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), -1)
    return adjusted


def holm_levels(p_values: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Return the level (m,) of each comparison's deciding interval, from the p-values (m,) of the intervals.

    Raises `ValueError` for alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1); found {alpha}")
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    remaining = len(p_values) - np.arange(len(p_values))  # m - k + 1 at rank k
    kept = np.flatnonzero(p_values[order] * remaining > alpha)
    if len(kept):
        remaining[kept[0] :] = remaining[kept[0]]
    levels = np.empty_like(p_values)
    levels[order] = 1 - alpha / remaining
    return levels


def judge(comparisons: Sequence[Comparison], alpha: float = ALPHA) -> list[Comparison]:
    """Return the comparisons, in the same order, with their Holm levels, which determine their verdicts."""
    levels = holm_levels(np.array([one.interval_p_value for one in comparisons]), alpha)
    judged = [replace(one, level=float(level)) for one, level in zip(comparisons, levels, strict=True)]
    places = [place for place, one in enumerate(judged) if one.rope]
    wider = holm_levels(np.array([judged[place].rope_p_value for place in places]), alpha)
    for place, level in zip(places, wider, strict=True):
        one = replace(judged[place], rope_level=float(level))
        decided = one.verdict in ("helps", "hurts")
        judged[place] = one if decided else replace(one, level=max(one.level, float(level)))
    return judged


def family(comparisons: Sequence[Comparison], alpha: float = ALPHA) -> list[dict[str, Any]]:
    """Return one record per comparison, in the same order, in the form of a study's `metrics.comparisons`.

    `difference` has the 95 % interval; `difference_holm` has the deciding interval, whose level also applies to
    `minimum_detectable`. `p_value_holm` is the sign-flip p-value after Holm's correction; it does not decide, because
    with few seeds m times its floor exceeds .05 for any effect. Raises `ValueError` for alpha outside (0, 1).
    """
    adjusted = holm(np.array([one.p_value for one in comparisons]))
    judged = judge(comparisons, alpha)
    return [_record(one, float(p_value)) for one, p_value in zip(judged, adjusted, strict=True)]


def _record(one: Comparison, p_value_holm: float) -> dict[str, Any]:
    return {
        "task": one.task,
        "fraction": one.fraction,
        "arm": one.arm,
        "baseline": one.baseline,
        "difference": one.difference.to_json(),
        "difference_holm": {**one.deciding.to_json(), "level": one.level},
        "p_value": one.p_value,
        "p_value_floor": sign_flip_floor(one.num_seeds),
        "p_value_holm": p_value_holm,
        "minimum_detectable": one.minimum_detectable,
        "verdict": one.verdict,
        "reason": one.reason,
        "rope": one.rope,
        "within_rope": one.within_rope,
        "arm_score": one.arm_score.to_json(),
        "baseline_score": one.baseline_score.to_json(),
        "num_seeds": one.num_seeds,
        "n": one.difference.n,
        "std": one.std,
        "image_error": one.image_error,
        "skewness": float(one.spread.skewness),
    }

"""Many comparisons at once: Holm's correction, so that a family of null effects seldom gives a single false call.

Holm, "A simple sequentially rejective multiple test procedure", 1979, https://www.jstor.org/stable/4615733. With m
comparisons ranked by their intervals' evidence, rank k (1 is the strongest) is judged by the interval of level
1 - alpha / (m - k + 1), up to the first that holds 0; the rest are judged at that one's level, so all of them hold 0
too, and the verdicts are Holm's. Their chance of any false call is alpha at most, whatever the comparisons share. That
all m intervals hold their truths at once is not claimed; of level 1 - alpha / m they would (Bonferroni).
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
    """Adjusted p-values (..., m) of p-values (..., m): those at most alpha are Holm's rejections at alpha.

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
    """The level (m,) at which each comparison's interval is judged, from the p-values (m,) of those intervals.

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
    """The same comparisons in the same order, each at its Holm level, which its verdict then goes by."""
    levels = holm_levels(np.array([one.interval_p_value for one in comparisons]), alpha)
    return [replace(one, level=float(level)) for one, level in zip(comparisons, levels, strict=True)]


def family(comparisons: Sequence[Comparison], alpha: float = ALPHA) -> list[dict[str, Any]]:
    """A record a comparison, in the same order, as a study's `metrics.comparisons` holds them.

    `difference` carries its own 95 % interval, `difference_holm` the one that the verdict goes by, whose level also
    `minimum_detectable` is for. `p_value_holm` is the sign-flip p-value after Holm; at few seeds m times its floor may
    pass .05 whatever the effect, so it does not decide. Raises `ValueError` for alpha outside (0, 1).
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
        "arm_score": one.arm_score.to_json(),
        "baseline_score": one.baseline_score.to_json(),
        "num_seeds": one.num_seeds,
        "n": one.difference.n,
        "std": one.std,
        "image_error": one.image_error,
        "skewness": float(one.spread.skewness),
    }

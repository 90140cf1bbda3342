"""Metrics as functions of sums over instances, so that one method gives intervals for all (`evaluation.scores`)."""
# n instances, M sums

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]  # sums (..., M) -> (...,); NaN where undefined
UNLIMITED = (-math.inf, math.inf)
SHARE = (0.0, 1.0)  # the limits of accuracies and the like


@dataclass(frozen=True)
class Measure:
    """One metric: `statistic` of the sums of `parts` (n, M) over n instances.

    Measures with the same array of parts share its sums. `is_proportion`: the metric is the share of instances whose
    first part is 1, which has an exact interval. `value`, if given, replaces the statistic of all instances. `limits`
    are the smallest and largest possible values.
    """

    parts: np.ndarray
    statistic: Statistic
    is_proportion: bool = False
    value: float | None = None
    limits: tuple[float, float] = UNLIMITED


def mean_of(values: np.ndarray) -> Measure:
    """Return the mean of (n,) values as a measure; for bool values, a proportion."""
    parts = np.stack([values, np.ones(len(values))], axis=1)
    return Measure(parts, ratio(0, 1), is_proportion=values.dtype == bool)


def ratio(numerator: int, denominator: int) -> Statistic:
    """Return the statistic that divides one sum by another."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., numerator], sums[..., denominator])

    return statistic


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient of arrays of any shape, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)

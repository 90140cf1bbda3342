"""Scores: values with their 95 % intervals, the number of instances n and the number of clusters.

Images of one photograph, one person or one video are not independent, so intervals are over whole clusters
(`evaluation.jackknife`). One method serves every metric, because each is a function of sums over instances: accuracy of
hits and counts, macro F1 of the counts of each class, skill of two errors.
"""
# n instances, G clusters, M sums

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from vision_mtl.core.sums import SHARE, UNLIMITED, Measure, Statistic, divide, ratio
from vision_mtl.evaluation.jackknife import Jackknife, proportion_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """A value with the ends of its 95 % interval, n instances and their clusters.

    Both ends are None for too few clusters (`jackknife.MIN_CLUSTERS`).
    """

    value: float
    low: float | None
    high: float | None
    n: int
    num_clusters: int

    def to_json(self) -> dict[str, Any]:
        """The score in the form of `result.json`."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "num_clusters": self.num_clusters}


def score(
    sums: Jackknife, statistic: Statistic, value: float | None = None, limits: tuple[float, float] = UNLIMITED
) -> Score:
    """Return the statistic of all instances (`value` if it is already known) with its interval, within `limits`.

    The interval is extended to contain the value, since that of a biased statistic such as the calibration error may
    not. A share whose interval has no width, such as an F1 of 1, gets that of a proportion of clusters.
    """
    found = float(statistic(sums.sums)) if value is None else value
    ends = sums.interval(statistic, LEVEL) if math.isfinite(found) else None
    if ends is not None and ends[0] == ends[1] and limits == SHARE and found in SHARE:
        ends = proportion_interval(np.full(sums.n, found == 1), sums.group, LEVEL)
    if ends is None:
        return Score(found, None, None, sums.n, sums.num_clusters)
    low, high = max(min(ends[0], found), limits[0]), min(max(ends[1], found), limits[1])
    return Score(found, low, high, sums.n, sums.num_clusters)


def score_measures(measures: Mapping[str, Measure], clusters: np.ndarray) -> dict[str, Score]:
    """Each metric of n instances with its interval over clusters (n,); exact for a proportion without clusters."""
    jackknives: dict[int, Jackknife] = {}  # measures with the same parts share their sums
    found = {}
    for name, measure in measures.items():
        if measure.is_proportion:
            found[name] = accuracy_score(measure.parts[:, 0] > 0, clusters)
            continue
        key = id(measure.parts)
        if key not in jackknives:
            jackknives[key] = Jackknife(measure.parts, clusters)
        found[name] = score(jackknives[key], measure.statistic, measure.value, measure.limits)
    return found


def ratio_skill(model_error: np.ndarray, reference_error: np.ndarray, clusters: np.ndarray) -> Score:
    """`1 - sum(model_error) / sum(reference_error)`; all (n,). A mean of ratios would divide by references of 0.

    The interval is over clusters, weighted by the reference's errors. If the sum of the reference is 0, the skill is 0
    for a model without errors. Raises `ValueError` for a model with errors then, and for unequal lengths or no
    instance.
    """
    if not len(model_error) == len(reference_error) == len(clusters) or len(clusters) == 0:
        raise ValueError(
            f"need equal lengths above 0; found {len(model_error)}, {len(reference_error)}, {len(clusters)}"
        )
    sums = Jackknife(np.stack([model_error, reference_error], axis=1), clusters, reference_error)
    model, reference = sums.sums
    if reference == 0:
        if model == 0:
            return Score(0.0, 0.0, 0.0, sums.n, sums.num_clusters)
        raise ValueError("the reference makes no error and the model does: skill is undefined")
    return score(sums, _skill)


def mean_score(values: np.ndarray, clusters: np.ndarray) -> Score:
    """The mean of values (n,) with its interval over clusters (n,)."""
    return score(Jackknife(np.stack([values, np.ones(len(values))], axis=1), clusters), ratio(0, 1))


def accuracy_score(correct: np.ndarray, clusters: np.ndarray) -> Score:
    """The share of True in (n,) bool, with the exact interval if no instances share a cluster, else over clusters."""
    num_clusters = len(np.unique(clusters))
    if num_clusters == len(correct):
        return proportion(correct)
    low, high = proportion_interval(correct, clusters, LEVEL) or (None, None)
    return Score(float(np.mean(correct)), low, high, len(correct), num_clusters)


def proportion(correct: np.ndarray) -> Score:
    """The accuracy of independent instances (n,) bool, with the exact interval of Clopper and Pearson, 1934.

    Raises `ValueError` without an instance.
    """
    n, hits = len(correct), int(np.sum(correct))
    if n == 0:
        raise ValueError("accuracy of no instance")
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return Score(hits / n, low, high, n, n)


def _skill(sums: np.ndarray) -> np.ndarray:
    return 1 - divide(sums[..., 0], sums[..., 1])

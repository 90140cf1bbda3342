"""Scores with intervals. A score is never a bare number: it carries its 95 % interval, n and the number of clusters.

Images of one photograph, one person or one video are not independent, so whole clusters are resampled (Field and Welsh,
"Bootstrapping clustered data", 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x, sec. 2: the cluster bootstrap).

One bootstrap serves every metric, because each is a function of sums over instances: an accuracy of hits and counts, a
macro F1 of the counts of each class, a skill of two errors. Resampling clusters only reweights their sums.
"""
# n instances, G clusters, R resamples, M sums

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import beta

from vision_mtl.core.sums import Measure, Statistic, divide, ratio

RESAMPLES = 2000  # the ends of a 95 % percentile interval then repeat to about a fiftieth of its width
LEVEL = 0.95
SEED = 0  # of the resampling: a score is a function of its data
CHUNK = 1_000_000  # draws held at once, thrice 8 MB: resamples x clusters can be 1e8


@dataclass(frozen=True)
class Score:
    """A value with the ends of its 95 % interval (None where it cannot be had), n instances and their clusters."""

    value: float
    low: float | None
    high: float | None
    n: int
    num_clusters: int

    def to_json(self) -> dict[str, Any]:
        """The form that `result.json` holds."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "num_clusters": self.num_clusters}


class Bootstrap:
    """Sums of `parts` (n, M) over n instances, and over R resamples of their clusters (n,) drawn with replacement.

    The resamples depend on the number of clusters only, so scores of the same instances move together. Raises
    `ValueError` for no instance or unequal lengths.
    """

    def __init__(self, parts: np.ndarray, clusters: np.ndarray) -> None:
        if len(parts) != len(clusters) or len(clusters) == 0:
            raise ValueError(f"need equal lengths above 0; found {len(parts)} rows and {len(clusters)} clusters")
        group = np.unique(clusters, return_inverse=True)[1]  # (n,) 0 to G - 1
        self.n, self.num_clusters = len(group), int(group.max()) + 1
        members = csr_matrix((np.ones(self.n), (group, np.arange(self.n))))  # (G, n)
        self._by_cluster = members @ np.asarray(parts, np.float64)  # (G, M)
        self.sums = self._by_cluster.sum(0)  # (M,)
        self._resampled: np.ndarray | None = None

    def score(self, statistic: Statistic, value: float | None = None) -> Score:
        """The statistic of all instances (or the `value` of it that is known already) and its percentile interval.

        With a single cluster there is no interval. It always holds the value: a biased statistic, as a calibration
        error is, may lie outside of its own percentiles.
        """
        found = float(statistic(self.sums)) if value is None else value
        low, high = self.interval(statistic)
        if low is not None and high is not None:
            low, high = min(low, found), max(high, found)
        return Score(found, low, high, self.n, self.num_clusters)

    def interval(self, statistic: Statistic) -> tuple[float | None, float | None]:
        """The percentile interval alone; (None, None) with a single cluster, or where no resample defines it."""
        if self.num_clusters < 2:
            return None, None
        if self._resampled is None:
            self._resampled = self._resample()
        values = statistic(self._resampled)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            return None, None
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)

    def _resample(self) -> np.ndarray:
        """(R, M): the sums of R resamples."""
        random, size = np.random.default_rng(SEED), self.num_clusters
        rows = max(1, CHUNK // size)
        found = []
        for start in range(0, RESAMPLES, rows):
            count = min(rows, RESAMPLES - start)
            drawn = random.integers(size, size=(count, size)) + np.arange(count)[:, None] * size
            weights = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
            found.append(weights.astype(np.float64) @ self._by_cluster)
        return np.concatenate(found)


def score_measures(measures: Mapping[str, Measure], clusters: np.ndarray) -> dict[str, Score]:
    """Each metric of n instances with its interval over clusters (n,); a proportion's is exact where it can be."""
    bootstraps: dict[int, Bootstrap] = {}  # measures of the same parts share the resamples
    found = {}
    for name, measure in measures.items():
        if measure.is_proportion:
            found[name] = accuracy_score(measure.parts[:, 0] > 0, clusters)
            continue
        key = id(measure.parts)
        if key not in bootstraps:
            bootstraps[key] = Bootstrap(measure.parts, clusters)
        found[name] = bootstraps[key].score(measure.statistic, measure.value)
    return found


def ratio_skill(model_error: np.ndarray, reference_error: np.ndarray, clusters: np.ndarray) -> Score:
    """`1 - sum(model_error) / sum(reference_error)`; all (n,). Sums, not a mean of ratios: a reference can be 0.

    The interval is the percentile bootstrap over clusters. With a single cluster there is none (low and high None). A
    reference without any error leaves nothing to gain: the skill is 0 if the model makes none either, else undefined,
    which raises `ValueError`.
    """
    if not len(model_error) == len(reference_error) == len(clusters) or len(clusters) == 0:
        raise ValueError(
            f"need equal lengths above 0; found {len(model_error)}, {len(reference_error)}, {len(clusters)}"
        )
    bootstrap = Bootstrap(np.stack([model_error, reference_error], axis=1), clusters)
    model, reference = bootstrap.sums
    if reference == 0:
        if model == 0:
            return Score(0.0, 0.0, 0.0, bootstrap.n, bootstrap.num_clusters)
        raise ValueError("the reference makes no error and the model does: skill is undefined")
    return bootstrap.score(_skill)


def mean_score(values: np.ndarray, clusters: np.ndarray) -> Score:
    """The mean of (n,) values and its interval over clusters (n,)."""
    return Bootstrap(np.stack([values, np.ones(len(values))], axis=1), clusters).score(ratio(0, 1))


def accuracy_score(correct: np.ndarray, clusters: np.ndarray) -> Score:
    """The share of (n,) bool that is true: the exact interval if no two instances share a cluster, else bootstrap."""
    if len(np.unique(clusters)) == len(correct):
        return proportion(correct)
    return mean_score(correct, clusters)


def proportion(correct: np.ndarray) -> Score:
    """Accuracy of independent instances: (n,) bool. The interval is exact (Clopper and Pearson, 1934).

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

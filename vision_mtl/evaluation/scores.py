"""Scores: values with their 95 % intervals, the number of instances n and the number of clusters.

Images of one photograph, one person or one video are not independent, so whole clusters are resampled (Field and Welsh,
"Bootstrapping clustered data", 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x, sec. 2: the cluster bootstrap).

One bootstrap serves every metric, because each is a function of sums over instances: accuracy of hits and counts, macro
F1 of the counts of each class, skill of two errors. Resampling clusters only changes the weights of their sums.
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

RESAMPLES = 2000  # reproduces the ends of a 95 % percentile interval to about a fiftieth of its width
LEVEL = 0.95
SEED = 0  # fixed, so that a score is a function of its data
CHUNK = 1_000_000  # draws held at once, three times 8 MB; all resamples of all clusters can be 1e8


@dataclass(frozen=True)
class Score:
    """A value with the ends of its 95 % interval (None where there is none), n instances and their clusters."""

    value: float
    low: float | None
    high: float | None
    n: int
    num_clusters: int

    def to_json(self) -> dict[str, Any]:
        """The score in the form of `result.json`."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "num_clusters": self.num_clusters}


class Bootstrap:
    """Sums of `parts` (n, M) over n instances, and over R resamples of their clusters (n,) drawn with replacement.

    The resamples depend only on the number of clusters, so scores of the same instances are resampled jointly. Raises
    `ValueError` without an instance or for unequal lengths.
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
        """Return the statistic of all instances (`value` if it is already known) with its percentile interval.

        With a single cluster there is no interval. It is extended to contain the value, since a biased statistic such
        as the calibration error may lie outside its own percentiles.
        """
        found = float(statistic(self.sums)) if value is None else value
        low, high = self.interval(statistic)
        if low is not None and high is not None:
            low, high = min(low, found), max(high, found)
        return Score(found, low, high, self.n, self.num_clusters)

    def interval(self, statistic: Statistic) -> tuple[float | None, float | None]:
        """The percentile interval; (None, None) for a single cluster, or if no resample has a finite statistic."""
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
        """(R, M) sums of R resamples."""
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
    """Each metric of n instances with its interval over clusters (n,); exact for a proportion without clusters."""
    bootstraps: dict[int, Bootstrap] = {}  # measures with the same parts share their resamples
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
    """`1 - sum(model_error) / sum(reference_error)`; all (n,). A mean of ratios would divide by references of 0.

    The interval is the percentile bootstrap over clusters; a single cluster has none (low and high are None). If the
    sum of the reference is 0, the skill is 0 for a model without errors. Raises `ValueError` for a model with errors
    then, and for unequal lengths or no instance.
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
    """The mean of values (n,) with its interval over clusters (n,)."""
    return Bootstrap(np.stack([values, np.ones(len(values))], axis=1), clusters).score(ratio(0, 1))


def accuracy_score(correct: np.ndarray, clusters: np.ndarray) -> Score:
    """The share of True in (n,) bool, with the exact interval if no instances share a cluster, else the bootstrap's."""
    if len(np.unique(clusters)) == len(correct):
        return proportion(correct)
    return mean_score(correct, clusters)


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

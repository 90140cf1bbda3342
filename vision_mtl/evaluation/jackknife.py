"""Intervals over clusters of unequal size, for any statistic of sums over instances.

Images of one photograph, one person or one video are not independent, so whole clusters are left out one at a time. The
interval is Student's, on the jackknife's standard error, with two corrections that few, unequal or skewed clusters need
(`benchmarks/intervals.py` measures what each of them brings):

- degrees of freedom by Satterthwaite's rule from the clusters' weights instead of G - 1: a cluster that holds half of
  the instances makes the standard error itself uncertain (Bell and McCaffrey, "Bias reduction in standard errors for
  linear regression with multi-stage samples", Survey Methodology 28, 2002; Imbens and Kolesar, "Robust standard errors
  in small samples", 2016, https://doi.org/10.1162/REST_a_00552, sec. 3);
- skewness: each end is moved by the inverse of Hall's cubic transformation ("On the removal of skewness by
  transformation", JRSS B 54, 1992, pp. 221-228). Differs from the paper: the sample's skewness is multiplied by 1.5,
  because a few draws of a skewed law show too little of its tail.

For a proportion, a cluster of right and one of wrong instances are added (as Agresti and Coull add two of each,
"Approximate is better than 'exact'", 1998, https://doi.org/10.1080/00031305.1998.10480550), each with 0.35 of the mean
cluster's weight. So the interval has a width even if every instance is right.
"""
# n instances, G clusters, M sums

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import t

from vision_mtl.core.sums import Statistic

SKEW_FACTOR = 1.5  # of the sample's skewness; chosen by simulation from 1, 1.25, 1.5 and 2
MIN_CLUSTERS = 5  # with fewer there is no interval: coverage of unequal or skewed ones falls below 93 %
ADDED_WEIGHT = 0.35  # of the mean cluster, for either added cluster; .25 is too little near 1, .5 too much near .5
CHUNK = 4_000_000  # sums held at once


class Jackknife:
    """Sums of `parts` (n, M) over n instances, and the same without one of their G clusters (n,).

    `weights` (n,) are the instances' shares in the statistic: equal for a mean, the reference's errors for a skill.
    Raises `ValueError` without an instance or for unequal lengths.
    """

    def __init__(self, parts: np.ndarray, clusters: np.ndarray, weights: np.ndarray | None = None) -> None:
        if len(parts) != len(clusters) or len(clusters) == 0:
            raise ValueError(f"need equal lengths above 0; found {len(parts)} rows and {len(clusters)} clusters")
        self.group = np.unique(clusters, return_inverse=True)[1]  # (n,) 0 to G - 1
        self.n, self.num_clusters = len(self.group), int(self.group.max()) + 1
        self._by_cluster = cluster_sums(np.asarray(parts, np.float64), self.group)  # (G, M)
        self.sums = self._by_cluster.sum(0)  # (M,)
        self.weights = np.bincount(self.group, weights).astype(np.float64)  # (G,)

    def interval(self, statistic: Statistic, level: float) -> tuple[float, float] | None:
        """Return the interval of the statistic; None for too few clusters, or if the statistic is undefined."""
        total = self.weights.sum()
        if self.num_clusters < MIN_CLUSTERS or not total > 0:
            return None
        degrees = effective_degrees(self.weights / total)
        value = float(statistic(self.sums))
        influence = value - self._without_each(statistic)  # (G,)
        influence = influence[np.isfinite(influence)]  # undefined without that cluster: it cannot be judged
        if not len(influence) or not np.isfinite(value):
            return None
        below, above = reach(influence, degrees, self.num_clusters, level)
        return value - below, value + above

    def _without_each(self, statistic: Statistic) -> np.ndarray:
        """(G,) the statistic without each cluster."""
        rows = max(1, CHUNK // self._by_cluster.shape[1])
        starts = range(0, self.num_clusters, rows)
        return np.concatenate([statistic(self.sums - self._by_cluster[start : start + rows]) for start in starts])


def cluster_sums(parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(G, M) sums of parts (n, M) over the instances of each cluster; `group` (n,) holds 0 to G - 1."""
    return csr_matrix((np.ones(len(group)), (group, np.arange(len(group))))) @ parts


def reach(influence: np.ndarray, degrees: float, num_clusters: int, level: float) -> tuple[float, float]:
    """Return how far the interval extends below and above the value.

    `influence` (G,) is the value minus the value without each cluster.
    """
    squares = float((influence**2).sum())
    error = np.sqrt(squares * (num_clusters - 1) / num_clusters)  # the jackknife's
    if error == 0:
        return 0.0, 0.0
    size = degrees + 1
    skewness = SKEW_FACTOR * float((influence**3).sum()) / squares**1.5 * np.sqrt(size)
    quantile = float(t.isf((1 - level) / 2, degrees))
    below, above = (float(untransformed(q, np.asarray(skewness), size)) for q in (quantile, -quantile))
    return below * error, -above * error


def effective_degrees(weights: np.ndarray, variances: np.ndarray | None = None) -> float:
    """Return Satterthwaite's degrees of freedom of the jackknife's variance of a weighted mean.

    `weights` (G,) of the clusters sum to 1; `variances` (G,) of their means, up to a factor, are equal by default. G
    equal clusters have G - 1; the least is 1.
    """
    if weights.max() >= 1:
        return 1.0
    omega = np.ones_like(weights) if variances is None else variances
    # the estimate is y'Ay with A = sum_g scale_g p_g p_g', p_g = e_g - weights; p_g' omega p_h = [g = h] omega_g -
    # shared_g - shared_h + rest; degrees = trace(A omega)^2 / trace((A omega)^2)
    scale, shared = (weights / (1 - weights)) ** 2, weights * omega
    rest = float(weights @ shared)
    own = omega - 2 * shared + rest
    zero, one, two = scale.sum(), scale @ shared, scale @ shared**2
    pairs = 2 * zero * two + 2 * one**2 + rest**2 * zero**2 - 4 * rest * zero * one
    squares = (scale**2 * (own**2 - (rest - 2 * shared) ** 2)).sum() + pairs
    return max(float((scale @ own) ** 2 / squares), 1.0)


def proportion_interval(correct: np.ndarray, clusters: np.ndarray, level: float) -> tuple[float, float] | None:
    """Return the interval of the share of True in (n,) bool over clusters (n,); None for too few clusters."""
    group = np.unique(clusters, return_inverse=True)[1]
    sizes, hits = np.bincount(group).astype(np.float64), np.bincount(group, correct)
    if len(sizes) < MIN_CLUSTERS:
        return None
    degrees = effective_degrees(sizes / sizes.sum(), _variances(sizes, hits))
    added = ADDED_WEIGHT * sizes.mean()
    sizes, hits = np.append(sizes, [added, added]), np.append(hits, [added, 0.0])
    share = sizes / sizes.sum()
    value = float(hits.sum() / sizes.sum())
    influence = share * (hits / sizes - value) / (1 - share)
    error = np.sqrt((influence**2).sum() * (len(share) - 1) / len(share))
    half = float(t.isf((1 - level) / 2, degrees) * error)
    return max(value - half, 0.0), min(value + half, 1.0)


def _variances(sizes: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """(G,) variances of the clusters' means, up to a factor: rho + (1 - rho) / size, with the ANOVA estimate of rho."""
    count, total = len(sizes), sizes.sum()
    means = hits / sizes
    between = float((sizes * (means - hits.sum() / total) ** 2).sum()) / (count - 1)
    within = float((hits * (1 - means)).sum()) / max(total - count, 1)
    typical = (total - (sizes**2).sum() / total) / (count - 1)
    spread = between + (typical - 1) * within
    rho = min(max((between - within) / spread, 0.0), 1.0) if spread > 0 else 1.0
    return rho + (1 - rho) / sizes


def transformed(statistic: np.ndarray, skewness: np.ndarray, size: float) -> np.ndarray:
    """(...,) Hall's cubic transformation of t statistics; `size` is the number of draws."""
    scaled = statistic / np.sqrt(size)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = scaled + skewness * scaled**2 / 3 + skewness**2 * scaled**3 / 27 + skewness / (6 * size)
    return np.where(np.isfinite(statistic), np.sqrt(size) * moved, statistic)


def untransformed(quantile: float, skewness: np.ndarray, size: float) -> np.ndarray:
    """(...,) the t statistic that Hall's cubic transformation maps to `quantile`; `size` is the number of draws."""
    step = quantile / np.sqrt(size) - skewness / (6 * size)
    root = np.cbrt(1 + skewness * step)
    return np.sqrt(size) * 3 * step / (root**2 + root + 1)  # = 3 (root - 1) / skewness, without 0 / 0

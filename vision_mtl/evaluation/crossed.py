"""The mean of values measured over seeds × the same test images, and an interval for it.

A value is `mean + seed + image + rest`; seeds and images are both samples, and an interval that ignores one of them is
too short. The variance of the mean has a component that more seeds lower and one that only more images lower (Owen,
"The pigeonhole bootstrap", 2007, https://arxiv.org/abs/0712.1111, sec. 2: the two-way random-effects model). Each
component is estimated from its own mean squares and has its own t-interval; their distances from the mean are combined
as the root of the sum of squares, which needs no approximate degrees of freedom (Zou and Donner, "Construction of
confidence limits about effect measures", 2008, https://doi.org/10.1002/sim.3095, sec. 2).
Differs from the papers: clusters of unequal size are weighted by their images, and the images' component has the
degrees of freedom of `evaluation.jackknife`. `benchmarks/statistics.py` measures the coverage of the interval.
"""
# S seeds, n instances, G clusters

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

from vision_mtl.evaluation.jackknife import ADDED_WEIGHT, cluster_sums, effective_degrees, untransformed
from vision_mtl.evaluation.scores import LEVEL

SMALLEST = 1e-15  # p-values below this are returned as 0


@dataclass(frozen=True)
class Spread:
    """Means (...,) and their standard errors, in the unit of the values; NaN for a single seed or cluster.

    `seed_error` is the standard error that more seeds lower, `image_error` the one that only more test images lower.
    `skewness` is the skewness over the seeds' means, for the guarded interval; 0 below 3 seeds. `centre` is the mean,
    for a share that of the values with a right and a wrong cluster added.
    """

    mean: np.ndarray
    centre: np.ndarray
    seed_error: np.ndarray
    image_error: np.ndarray
    skewness: np.ndarray
    num_seeds: int
    num_clusters: int
    image_degrees: float  # of freedom of `image_error`: G - 1 for equal clusters, fewer for unequal ones

    def interval(self, level: float = LEVEL, *, guard_skew: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The ends (...,) of the interval; NaN where there is none.

        `guard_skew` extends each end at least as far as the skewness of the seeds requires (Hall, "On the removal of
        skewness by transformation", JRSS B 54, 1992, pp. 221-228). It improves coverage for skewed values and costs
        power for others. Raises `ValueError` for a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1); found {level}")
        below, above = self._reach((1 - level) / 2, guard_skew)
        return self.centre - below, self.centre + above

    def p_value(self, *, guard_skew: bool = False) -> float:
        """The smallest alpha whose interval of level 1 - alpha excludes 0, for one mean; 1 if there is none."""
        mean, found = float(self.mean), np.isfinite(self.seed_error) & np.isfinite(self.image_error)
        if mean == 0 or not found:
            return 1.0

        def margin(alpha: float) -> float:
            below, above = self._reach(alpha / 2, guard_skew)
            return abs(mean) - float(below if mean > 0 else above)

        if margin(1.0) <= 0:  # a guarded interval has a width even at level 0, and contains 0
            return 1.0
        return _root(margin)

    def p_value_within(self, bound: float, *, guard_skew: bool = False) -> float:
        """The smallest alpha whose interval of level 1 - alpha lies within ±`bound`, for one mean; 1 if there is none.

        Two one-sided tests at alpha / 2 (Schuirmann, 1987, https://doi.org/10.1007/BF01068419).
        """
        mean = float(self.mean)
        if not (np.isfinite(self.seed_error) & np.isfinite(self.image_error)):
            return 1.0

        def margin(alpha: float) -> float:
            below, above = self._reach(alpha / 2, guard_skew)
            return bound - max(float(below) - mean, float(above) + mean)

        return 1.0 if margin(1.0) <= 0 else _root(margin)

    def _reach(self, tail: float, guard_skew: bool) -> tuple[np.ndarray, np.ndarray]:
        """The interval's extent below and above the mean, both (...,), with probability `tail` beyond either end."""
        quantile = t.isf(tail, max(self.num_seeds - 1, 1))
        image = t.isf(tail, self.image_degrees) * self.image_error
        below = above = np.full_like(self.skewness, quantile)
        if guard_skew:
            below = np.maximum(quantile, untransformed(quantile, self.skewness, self.num_seeds))
            above = np.maximum(quantile, -untransformed(-quantile, self.skewness, self.num_seeds))
        return np.hypot(below * self.seed_error, image), np.hypot(above * self.seed_error, image)


def _root(margin: Callable[[float], float]) -> float:
    """Return where a function of alpha, which is above 0 at 1, becomes 0; 0 if it is above 0 everywhere."""
    return 0.0 if margin(SMALLEST) >= 0 else float(brentq(margin, SMALLEST, 1.0, xtol=1e-16, rtol=1e-10))


def spread(values: np.ndarray, clusters: np.ndarray, *, is_share: bool = False) -> Spread:
    """Return the mean and standard errors of values (..., S, n) over seeds and the instances' clusters (n,).

    `is_share`: values lie in [0, 1], such as hits. Two clusters are then added as in `evaluation.jackknife`, so that
    the interval has a width even if every instance is right. Raises `ValueError` for fewer than two dimensions, no
    seed or instance, unequal lengths, or a non-finite value.
    """
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or 0 in values.shape or values.shape[-1] != len(clusters):
        raise ValueError(f"need values (..., S, n) and n clusters; found {values.shape} and {len(clusters)} clusters")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite; found {int((~np.isfinite(values)).sum())} that are not")
    by_seed = values.mean(-1)  # (..., S)
    group = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(group).astype(np.float64)
    degrees = effective_degrees(sizes / sizes.sum())
    sums = cluster_sums(values.reshape(-1, len(group)).T, group).T.reshape(*by_seed.shape, len(sizes))  # (..., S, G)
    if is_share:
        added = ADDED_WEIGHT * sizes.mean()
        sizes = np.append(sizes, [added, added])
        sums = np.concatenate([sums, np.broadcast_to([added, 0.0], (*by_seed.shape, 2))], axis=-1)
    residual = _residuals(sums, sizes)  # (..., S, G)
    num_seeds, num_clusters = residual.shape[-2:]
    with np.errstate(invalid="ignore", divide="ignore"):  # for one seed or cluster, 0 / 0 gives the documented NaN
        correction = np.float64(num_clusters) / (num_clusters - 1)
        both = residual.mean(-2, keepdims=True)  # (..., 1, G): the images' effect and their share of the rest
        images = correction * (both**2).sum((-2, -1))
        rest = correction * ((residual - both) ** 2).sum((-2, -1)) / (num_seeds * (num_seeds - np.float64(1)))
        centred = by_seed - by_seed.mean(-1, keepdims=True)
        seeds = (centred**2).sum(-1) / (num_seeds * (num_seeds - np.float64(1)))
    # `seeds` already includes the share of the rest; an estimate below 0 means that images add no variance of their own
    image_error = np.sqrt(np.maximum(images - rest, 0))
    if group.max() == 0:
        image_error = np.full_like(image_error, np.nan)
    centre = (sums.sum(-1) / sizes.sum()).mean(-1)
    mean, skewness = by_seed.mean(-1), _skewness(centred)
    return Spread(mean, centre, np.sqrt(seeds), image_error, skewness, num_seeds, int(group.max()) + 1, degrees)


def _residuals(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(..., S, G): how far each seed's mean moves when a cluster is left out, scaled so that G / (G - 1) times the sum
    of squares is the jackknife's variance. `sums` (..., S, G) of the clusters' values, `sizes` (G,)."""
    share = sizes / sizes.sum()
    means = sums.sum(-1, keepdims=True) / sizes.sum()
    if len(sizes) == 1:
        return np.zeros_like(sums)
    return share * (sums / sizes - means) / (1 - share) * (1 - 1 / len(sizes))


def _skewness(centred: np.ndarray) -> np.ndarray:
    """(...,) unbiased skewness of centred values (..., S); 0 for constants and below 3 seeds, where it is undefined."""
    size = centred.shape[-1]
    variance = (centred**2).mean(-1)
    if size < 3:
        return np.zeros_like(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        plain = (centred**3).mean(-1) / variance**1.5
    return np.where(variance > 0, plain, 0.0) * np.sqrt(size * (size - 1)) / (size - 2)

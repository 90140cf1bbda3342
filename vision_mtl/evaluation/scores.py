"""Scores with intervals. A score is never a bare number: it carries its 95 % interval, n and the number of clusters.

Images of one photograph, one person or one video are not independent, so whole clusters are resampled (Field and Welsh,
"Bootstrapping clustered data", 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x, sec. 2: the cluster bootstrap).
"""
# n instances, G clusters, R resamples

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

RESAMPLES = 2000  # the ends of a 95 % percentile interval then repeat to about a fiftieth of its width
LEVEL = 0.95
SEED = 0  # of the resampling: a score is a function of its data


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
    group = np.unique(clusters, return_inverse=True)[1]  # (n,) 0 to G - 1
    sums = np.stack([np.bincount(group, weights=e) for e in (model_error, reference_error)])  # (2, G)
    model, reference = sums.sum(1)
    if reference == 0:
        if model == 0:
            return Score(0.0, 0.0, 0.0, len(group), sums.shape[1])
        raise ValueError("the reference makes no error and the model does: skill is undefined")
    low, high = _bootstrap(sums)
    return Score(float(1 - model / reference), low, high, len(group), sums.shape[1])


def proportion(correct: np.ndarray) -> Score:
    """Accuracy of independent instances: (n,) bool. The interval is exact (Clopper and Pearson, 1934)."""
    n, hits = len(correct), int(np.sum(correct))
    if n == 0:
        raise ValueError("accuracy of no instance")
    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return Score(hits / n, low, high, n, n)


def _bootstrap(sums: np.ndarray) -> tuple[float | None, float | None]:
    """Ends of the interval of 1 - ratio of the two sums (2, G), clusters drawn with replacement."""
    num_clusters = sums.shape[1]
    if num_clusters < 2:
        return None, None
    counts = np.random.default_rng(SEED).multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), RESAMPLES)
    model, reference = sums @ counts.T  # (R,) each
    valid = reference > 0
    skills = 1 - model[valid] / reference[valid]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(skills, [tail, 1 - tail])
    return float(low), float(high)

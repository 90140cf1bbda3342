"""The exact sign-flip test over seeds: under the null hypothesis, each seed's difference has either sign equally often.

Fisher, "The design of experiments", 1935, sec. 21. It assumes no distribution, but S seeds have only 2**S signs, so no
p-value is below 2**(1 - S): .0625 for 5 seeds, .002 for 10. It does not generalise to other test images.
"""
# S seeds

from __future__ import annotations

import numpy as np

from vision_mtl.evaluation.statistics import SEED

MOST_EXACT = 40  # seeds: two halves of 2**20 sums take a second; with more seeds, signs are drawn
DRAWS = 100_000
TIE = 1e-12  # relative tolerance: sums of the same numbers in another order differ by rounding


def sign_flip(differences: np.ndarray) -> float:
    """The two-sided p-value of differences (S,): the share of sign patterns with a sum at least as far from 0.

    Up to 40 seeds it is exact, over all 2**S patterns; with more it is over 100,000 drawn patterns and the observed one
    (Phipson and Smyth, 2010, https://arxiv.org/abs/1603.05766). Raises `ValueError` without a seed or for a non-finite
    value.
    """
    differences = np.asarray(differences, np.float64)
    if differences.ndim != 1 or len(differences) == 0 or not np.isfinite(differences).all():
        raise ValueError(f"need finite differences (S,) of one seed or more; found {differences}")
    size = np.abs(differences)
    threshold = abs(differences.sum()) - TIE * size.sum()
    if len(size) > MOST_EXACT:
        return _sampled_p_value(size, threshold)
    half = len(size) // 2
    first, second = _signed_sums(size[:half]), np.sort(_signed_sums(size[half:]))
    # by symmetry, the same number of sums is at or below minus the threshold
    above = int((len(second) - np.searchsorted(second, threshold - first)).sum())
    return min(1.0, 2 * above / 2 ** len(size))


def sign_flip_floor(num_seeds: int) -> float:
    """The smallest p-value that `sign_flip` can return for this number of seeds."""
    return 2.0 ** (1 - num_seeds)


def _signed_sums(size: np.ndarray) -> np.ndarray:
    """(2**S,) sums of sizes (S,) under all sign patterns."""
    sums = np.zeros(1)
    for value in size:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _sampled_p_value(size: np.ndarray, threshold: float) -> float:
    random = np.random.default_rng(SEED)
    sums = np.concatenate([random.choice([-1, 1], (1000, len(size))) @ size for _ in range(DRAWS // 1000)])
    return float((1 + (np.abs(sums) >= threshold).sum()) / (1 + DRAWS))

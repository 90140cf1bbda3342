"""The exact sign-flip test over seeds: if the arms are alike, each seed's difference could as well be its negative.

Fisher, "The design of experiments", 1935, sec. 21. It asks for no distribution, but S seeds have only 2**S signs, so no
p-value lies below 2**(1 - S): .0625 at 5 seeds, .002 at 10. It speaks of these test images, and of no others.
"""
# S seeds

from __future__ import annotations

import numpy as np

from vision_mtl.evaluation.scores import SEED

MOST_EXACT = 40  # seeds: two halves of 2**20 sums, a second; beyond, signs are drawn
DRAWS = 100_000
TIE = 1e-12  # of the sum of sizes: sums of the same numbers in another order differ by rounding


def sign_flip(differences: np.ndarray) -> float:
    """The two-sided p-value of differences (S,): the share of signs whose sum is at least as far from 0.

    Exact up to 40 seeds, over all 2**S signs; beyond, over 100,000 drawn ones and the observed (Phipson and Smyth,
    2010, https://arxiv.org/abs/1603.05766). Raises `ValueError` for no seed or a value that is not finite.
    """
    differences = np.asarray(differences, np.float64)
    if differences.ndim != 1 or len(differences) == 0 or not np.isfinite(differences).all():
        raise ValueError(f"need finite differences (S,) of one seed or more; found {differences}")
    size = np.abs(differences)
    reached = abs(differences.sum()) - TIE * size.sum()
    if len(size) > MOST_EXACT:
        return _drawn(size, reached)
    half = len(size) // 2
    first, second = _signed_sums(size[:half]), np.sort(_signed_sums(size[half:]))
    # symmetric signs: as many sums lie at or above `reached` as at or below its negative
    above = int((len(second) - np.searchsorted(second, reached - first)).sum())
    return min(1.0, 2 * above / 2 ** len(size))


def sign_flip_floor(num_seeds: int) -> float:
    """The smallest p-value that `sign_flip` can give at this number of seeds."""
    return 2.0 ** (1 - num_seeds)


def _signed_sums(size: np.ndarray) -> np.ndarray:
    """(2**S,) the sums under all signs."""
    sums = np.zeros(1)
    for value in size:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _drawn(size: np.ndarray, reached: float) -> float:
    random = np.random.default_rng(SEED)
    sums = np.concatenate([random.choice([-1, 1], (1000, len(size))) @ size for _ in range(DRAWS // 1000)])
    return float((1 + (np.abs(sums) >= reached).sum()) / (1 + DRAWS))

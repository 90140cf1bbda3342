"""The probability of improvement: how often a run of one arm beats a run of another on a task.

Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021,
https://arxiv.org/abs/2108.13264, sec. 4.3: over all pairs of runs, a win counts 1 and a tie 1/2; tasks weigh equally.
Differs from the paper: a run scores all tasks, so whole runs are resampled, the same ones for every task; and runs of
one seed are resampled together, because they share splits and labels.
"""
# T tasks, S seeds, R resamples

from __future__ import annotations

import numpy as np

from vision_mtl.evaluation.scores import LEVEL, Score
from vision_mtl.evaluation.statistics import SEED

RESAMPLES = 10_000


def probability_of_improvement(arm: np.ndarray, baseline: np.ndarray) -> Score:
    """Return the probability that a run of `arm` beats one of `baseline`, from their scores (T, S); n is S.

    The interval is the bootstrap's over seeds. It has no width where every run of one arm beats all of the other, and
    there is none for one seed. Raises `ValueError` for unequal shapes, no task or seed, or a non-finite score.
    """
    arm, baseline = np.asarray(arm, np.float64), np.asarray(baseline, np.float64)
    if arm.shape != baseline.shape or arm.ndim != 2 or 0 in arm.shape:
        raise ValueError(f"need scores (tasks, seeds) of both arms; found {arm.shape} and {baseline.shape}")
    if not (np.isfinite(arm).all() and np.isfinite(baseline).all()):
        raise ValueError("scores must be finite")
    above = np.sign(arm[:, :, None] - baseline[:, None, :])  # (T, S, S)
    wins = ((above + 1) / 2).mean(0)  # (S, S)
    num_seeds = len(wins)
    if num_seeds < 2:
        return Score(float(wins.mean()), None, None, num_seeds, num_seeds)
    counts = np.random.default_rng(SEED).multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)  # (R, S)
    found = np.einsum("rs,st,rt->r", counts, wins, counts) / num_seeds**2
    low, high = (float(end) for end in np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Score(float(wins.mean()), low, high, num_seeds, num_seeds)

"""Comparison of two methods on the same test images, and of one method with chance.

The permutation baseline is the expected accuracy of predictions that are independent of the truth, with the same
frequencies of classes (Ojala and Garriga, "Permutation tests for studying classifier performance", JMLR 2010,
https://www.jmlr.org/papers/v11/ojala10a.html, sec. 3.1).
"""
# n instances, G clusters, K classes, L labels an instance

from __future__ import annotations

import numpy as np

from vision_mtl.evaluation.scores import LEVEL, Score, mean_score

SHUFFLES = 2000  # reproduces the ends of a 95 % percentile interval to about a fiftieth of its width
SEED = 0  # fixed, so that a score is a function of its data
CHUNK = 4_000_000  # shuffled labels held at once


def paired_difference(a: np.ndarray, b: np.ndarray, clusters: np.ndarray) -> Score:
    """`mean(a) - mean(b)` of two methods' values (n,) on the same instances, with an interval over their clusters (n,).

    Difficulty that both share cancels, so the interval is narrower than for unpaired means. Raises `ValueError` for
    unequal lengths or no instance.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values need equal lengths; found {len(a)} and {len(b)}")
    return mean_score(np.asarray(a, np.float64) - np.asarray(b, np.float64), clusters)


def permutation_baseline(pred: np.ndarray, true: np.ndarray) -> Score:
    """The accuracy by chance of classes (n,) int64, or of labels (n, L), averaged over L.

    The value is the exact mean over all shuffles of the truth, sum_k p_k q_k; the interval contains 95 % of the
    shuffles for this n. Raises `ValueError` for unequal shapes or no instance.
    """
    if pred.shape != true.shape or len(true) == 0:
        raise ValueError(f"need equal shapes and an instance; found {pred.shape} and {true.shape}")
    columns = [column.reshape(len(true), -1).T for column in (pred, true)]
    value = float(np.mean([expected_agreement(p, t) for p, t in zip(*columns, strict=True)]))
    random = np.random.default_rng(SEED)
    count = max(1, CHUNK // true.size)
    rows = [min(count, SHUFFLES - start) for start in range(0, SHUFFLES, count)]
    accuracies = np.concatenate([_shuffled_accuracies(pred, true, number, random) for number in rows])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(accuracies, [tail, 1 - tail])
    return Score(value, min(float(low), value), max(float(high), value), len(true), len(true))


def expected_agreement(pred: np.ndarray, true: np.ndarray) -> float:
    """sum_k p_k q_k of classes (n,) int64: the mean accuracy over all shuffles of one of them."""
    size = int(max(pred.max(), true.max())) + 1
    return float(np.bincount(pred, minlength=size) @ np.bincount(true, minlength=size) / len(true) ** 2)


def _shuffled_accuracies(pred: np.ndarray, true: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """(count,) accuracies, each for another shuffle of the rows of `true`."""
    order = random.permuted(np.tile(np.arange(len(true)), (count, 1)), axis=1)  # (count, n)
    return (true[order] == pred).reshape(count, -1).mean(1)

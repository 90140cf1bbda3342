"""Metrics of class probabilities as functions of sums over images.

AUROC is no such function; DeLong's placement values make it one (DeLong et al., "Comparing the areas under two or more
correlated receiver operating characteristic curves", 1988, https://doi.org/10.2307/2531595; clustered: Obuchowski,
"Nonparametric analysis of clustered ROC curve data", 1997, https://doi.org/10.2307/2533958).
Differs from the papers: the placement values are resampled, not put into a normal interval.
"""
# n images, K classes or labels, M sums

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from vision_mtl.core.sums import Measure, Statistic, divide

CALIBRATION_BINS = 15  # Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599


def one_hot(classes: np.ndarray, size: int) -> np.ndarray:
    """(n,) int -> (n, size) bool."""
    return classes[:, None] == np.arange(size)


def class_counts(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(n, K) bool twice -> (n, 3 K): hits, true, predicted; the parts of the functions below."""
    return np.concatenate([predicted & true, true, predicted], axis=1)


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """(..., 3 K) -> (...,): the mean recall of the classes that occur."""
    hits, occur, _ = np.split(sums, 3, axis=-1)
    return mean_of_defined(divide(hits, occur))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """(..., 3 K) -> (...,): the mean F1 of the classes that occur or are predicted."""
    return mean_of_defined(class_f1(sums))


def class_f1(sums: np.ndarray) -> np.ndarray:
    """(..., 3 K) -> (..., K): the F1 of each class, NaN where it neither occurs nor is predicted."""
    hits, occur, predicted = np.split(sums, 3, axis=-1)
    return divide(2 * hits, occur + predicted)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(..., K) -> (...,): the mean of what is not NaN; NaN if nothing is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0).sum(-1), defined.sum(-1).astype(np.float64))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> Measure:
    """The expected calibration error by 15 bins, of the winning class's probability (n,) and whether it is right."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    inside = one_hot(np.searchsorted(edges, confidence, side="right"), CALIBRATION_BINS)
    return Measure(np.concatenate([inside * (confidence - correct)[:, None], inside], axis=1), _calibration_error)


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    gaps, counts = np.split(sums, 2, axis=-1)
    return divide(abs(gaps).sum(-1), counts.sum(-1))


def macro_auroc(probabilities: np.ndarray, is_true: np.ndarray) -> Measure:
    """The mean AUROC of K classes or labels (n, K), each of which occurs and is missing in some image."""
    of_true, of_others = placements(probabilities, is_true)
    areas = of_true.sum(0) / is_true.sum(0)  # (K,)
    return Measure(np.concatenate([of_true, of_others, is_true, ~is_true], axis=1), _linearised_auroc(areas))


def placements(probabilities: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) twice: for a true instance the share of others below it, for another the share of true ones above it.

    A tie counts a half; the value is 0 where an instance does not belong to the group.
    """
    count = is_true.sum(0)
    among_all = rankdata(probabilities, axis=0)
    of_true, of_others = np.zeros_like(among_all), np.zeros_like(among_all)
    for k in range(is_true.shape[1]):
        for group, placed in ((is_true[:, k], of_true), (~is_true[:, k], of_others)):
            placed[group, k] = among_all[group, k] - rankdata(probabilities[group, k])
    others = len(is_true) - count
    return of_true / others, np.where(is_true, 0.0, 1 - of_others / count)


def _linearised_auroc(areas: np.ndarray) -> Statistic:
    """Near `areas` (K,) an area is the mean placement of true ones, plus that of the others, minus itself."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        of_true, of_others, count, others = np.split(sums, 4, axis=-1)
        found = divide(of_true, count) + divide(of_others, others) - areas
        return np.clip(mean_of_defined(found), 0, 1)

    return statistic

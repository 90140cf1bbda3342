"""Metrics of class probabilities as functions of sums over images.

For AUROC this needs DeLong's placement values (DeLong et al., "Comparing the areas under two or more
correlated receiver operating characteristic curves", 1988, https://doi.org/10.2307/2531595; clustered: Obuchowski,
"Nonparametric analysis of clustered ROC curve data", 1997, https://doi.org/10.2307/2533958).
Differs from the papers: the interval of the placement values is the jackknife's, not the normal one.
"""
# n images, K classes or labels, M sums

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from vision_mtl.core.sums import SHARE, Measure, Statistic, divide

CALIBRATION_BINS = 15  # Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599


def one_hot(classes: np.ndarray, size: int) -> np.ndarray:
    """Return (n, size) bool from class numbers (n,)."""
    return classes[:, None] == np.arange(size)


def class_counts(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return (n, 3 K) from (n, K) bool twice: hits, true, predicted; the parts of the functions below."""
    return np.concatenate([predicted & true, true, predicted], axis=1)


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """Return the mean recall of the classes that occur: (..., 3 K) -> (...,)."""
    hits, occur, _ = np.split(sums, 3, axis=-1)
    return mean_of_defined(divide(hits, occur))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes that occur or are predicted: (..., 3 K) -> (...,)."""
    return mean_of_defined(class_f1(sums))


def class_f1(sums: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, NaN if it neither occurs nor is predicted: (..., 3 K) -> (..., K)."""
    hits, occur, predicted = np.split(sums, 3, axis=-1)
    return divide(2 * hits, occur + predicted)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean of the values that are not NaN, or NaN if all are: (..., K) -> (...,)."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0).sum(-1), defined.sum(-1).astype(np.float64))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> Measure:
    """Return the expected calibration error with 15 bins; `confidence` (n,) of the predicted class, `correct` (n,)."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    inside = one_hot(np.searchsorted(edges, confidence, side="right"), CALIBRATION_BINS)
    return Measure(
        np.concatenate([inside * (confidence - correct)[:, None], inside], axis=1), _calibration_error, limits=SHARE
    )


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    gaps, counts = np.split(sums, 2, axis=-1)
    return divide(abs(gaps).sum(-1), counts.sum(-1))


def macro_auroc(probabilities: np.ndarray, is_true: np.ndarray) -> Measure:
    """Return the mean AUROC of K classes (n, K), each of which must be present in some images and absent in others."""
    of_true, of_others = placements(probabilities, is_true)
    areas = of_true.sum(0) / is_true.sum(0)  # (K,)
    return Measure(
        np.concatenate([of_true, of_others, is_true, ~is_true], axis=1), _linearised_auroc(areas), limits=SHARE
    )


def placements(probabilities: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the placement values of positives and of negatives, (n, K) each, 0 for instances of the other group.

    For a positive it is the share of negatives below it, for a negative the share of positives above it; a tie counts
    a half.
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
    """Return the AUROC linearised at `areas` (K,): mean placement of positives plus that of negatives minus area."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        of_true, of_others, count, others = np.split(sums, 4, axis=-1)
        found = divide(of_true, count) + divide(of_others, others) - areas
        return np.clip(mean_of_defined(found), 0, 1)

    return statistic

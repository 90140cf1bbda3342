"""Metrics by kind of task, each a score with its interval over clusters.

The values are torchmetrics'. The intervals come from one bootstrap over sums (`evaluation.scores`), which AUROC is not
a function of; it is made one by DeLong's placement values (DeLong et al., "Comparing the areas under two or more
correlated receiver operating characteristic curves", 1988, https://doi.org/10.2307/2531595; clustered: Obuchowski,
"Nonparametric analysis of clustered ROC curve data", 1997, https://doi.org/10.2307/2533958).
Differs from the papers: the placement values are resampled, not put into a normal interval.
"""
# n instances, K classes or labels, M sums

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.stats import rankdata
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_recall,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_f1_score,
)
from torchmetrics.functional.regression import mean_absolute_error, r2_score

from vision_mtl.evaluation.scores import Bootstrap, Score, Statistic, accuracy_score, divide, ratio

HEADLINE = {"single_label": "accuracy", "multi_label": "auroc", "regression": "mae", "dense": "mean_iou"}
CALIBRATION_BINS = 15  # Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599


def classification_metrics(probabilities: np.ndarray, true: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    """(n, K) probabilities, (n,) classes and clusters -> a score by metric.

    `accuracy`; `balanced_accuracy` is the mean recall of the classes that occur; `macro_f1` the mean over those that
    occur or are named; `auroc` each class against the rest, averaged, and absent where a class does not occur;
    `calibration_error` the expected one, by 15 bins of the winning probability.
    """
    probabilities = _two_columns(probabilities)
    num_classes = probabilities.shape[1]
    pred, said, truth = probabilities.argmax(1), torch.as_tensor(probabilities), torch.as_tensor(true)
    named, is_true = (_one_hot(classes, num_classes) for classes in (pred, true))
    counts = Bootstrap(np.concatenate([named & is_true, is_true, named], axis=1), clusters)
    occurs = is_true.any(0)
    recall = multiclass_recall(said, truth, num_classes, average="none").numpy()[occurs]
    macro_f1 = float(multiclass_f1_score(said, truth, num_classes, average="macro"))
    error = float(multiclass_calibration_error(said, truth, num_classes, n_bins=CALIBRATION_BINS))
    found = {
        "accuracy": accuracy_score(pred == true, clusters),
        "balanced_accuracy": counts.score(_balanced_accuracy, float(recall.mean())),
        "macro_f1": counts.score(_macro_f1, macro_f1),
    }
    if occurs.all():
        area = float(multiclass_auroc(said, truth, num_classes, average="macro"))
        found["auroc"] = _auroc_score(probabilities, is_true, clusters, area)
    bins = Bootstrap(_calibration_parts(probabilities.max(1), pred == true), clusters)
    return found | {"calibration_error": bins.score(_calibration_error, error)}


def multi_label_metrics(probabilities: np.ndarray, true: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    """(n, K) probabilities and {0, 1} labels, (n,) clusters -> accuracy, macro_f1, auroc, all averaged over labels.

    A label is named at a probability above 0.5. `auroc` is the mean over labels that are both there and not there in
    some instance; it is absent if no label is.
    """
    truth, named = true.astype(bool), probabilities > 0.5
    size = truth.shape[1]
    said, wanted = torch.as_tensor(probabilities), torch.as_tensor(truth).long()
    one_label = size == 1  # torchmetrics wants two labels; a copy of the one changes no average
    said, wanted = (torch.cat([x, x], 1) if one_label else x for x in (said, wanted))
    width = said.shape[1]
    counts = Bootstrap(np.concatenate([named & truth, truth, named, np.ones((len(truth), 1))], axis=1), clusters)
    found = {
        "accuracy": counts.score(_label_accuracy, float(multilabel_accuracy(said, wanted, width, average="macro"))),
        "macro_f1": counts.score(_macro_f1_of_labels, float(multilabel_f1_score(said, wanted, width, average="macro"))),
    }
    both = truth.any(0) & ~truth.all(0)
    if both.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it tells of labels without both; those are left out below
            areas = multilabel_auroc(said, wanted, width, average="none").numpy()[:size]
        found["auroc"] = _auroc_score(probabilities[:, both], truth[:, both], clusters, float(areas[both].mean()))
    return found


def regression_metrics(pred: np.ndarray, true: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    """(n,) values -> mae in the values' unit, and r2, at most 1 and below 0 where the mean would do better.

    `r2` is absent where the truth does not vary.
    """
    said, truth = (torch.as_tensor(v, dtype=torch.float64) for v in (pred, true))
    error, centred = np.subtract(pred, true, dtype=np.float64), true - np.mean(true, dtype=np.float64)
    sums = Bootstrap(np.stack([abs(error), np.ones(len(error)), error**2, centred, centred**2], axis=1), clusters)
    found = {"mae": sums.score(ratio(0, 1), float(mean_absolute_error(said, truth)))}
    if len(error) > 1 and np.ptp(true) > 0:
        found["r2"] = sums.score(_r2, float(r2_score(said, truth)))
    return found


def dense_metrics(confusion: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    """(n, K, K) pixel counts of each image, rows true and columns named -> mean_iou, pixel_accuracy.

    `mean_iou` is the mean over classes that occur or are named, of pixels summed over all images.
    """
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    sums = Bootstrap(np.concatenate([hits, confusion.sum(2), confusion.sum(1)], axis=1), clusters)
    return {"mean_iou": sums.score(_mean_iou), "pixel_accuracy": sums.score(_micro_accuracy)}


def _two_columns(probabilities: np.ndarray) -> np.ndarray:
    """A task of one class gets a second one that never occurs: torchmetrics wants two."""
    return np.pad(probabilities, ((0, 0), (0, 1))) if probabilities.shape[1] == 1 else probabilities


def _one_hot(classes: np.ndarray, size: int) -> np.ndarray:
    return classes[:, None] == np.arange(size)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN if nothing is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0).sum(-1), defined.sum(-1).astype(np.float64))


def _balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    hits, occur, _ = np.split(sums, 3, axis=-1)
    return _mean_of_defined(divide(hits, occur))


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    hits, occur, named = np.split(sums, 3, axis=-1)
    return _mean_of_defined(divide(2 * hits, occur + named))


def _macro_f1_of_labels(sums: np.ndarray) -> np.ndarray:
    return _macro_f1(sums[..., :-1])


def _label_accuracy(sums: np.ndarray) -> np.ndarray:
    hits, occur, named = np.split(sums[..., :-1], 3, axis=-1)
    wrong = (occur - hits) + (named - hits)
    return 1 - divide(wrong.mean(-1), sums[..., -1])


def _mean_iou(sums: np.ndarray) -> np.ndarray:
    hits, occur, named = np.split(sums, 3, axis=-1)
    return _mean_of_defined(divide(hits, occur + named - hits))


def _micro_accuracy(sums: np.ndarray) -> np.ndarray:
    hits, occur, _ = np.split(sums, 3, axis=-1)
    return divide(hits.sum(-1), occur.sum(-1))


def _r2(sums: np.ndarray) -> np.ndarray:
    _, count, squared_error, total, squares = np.moveaxis(sums, -1, 0)
    return 1 - divide(squared_error, squares - divide(total**2, count))


def _calibration_parts(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(n, 2 * bins): confidence minus correctness in the instance's bin, and a one for the count."""
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    inside = _one_hot(np.searchsorted(edges, confidence, side="right"), CALIBRATION_BINS)
    return np.concatenate([inside * (confidence - correct)[:, None], inside], axis=1)


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    gaps, counts = np.split(sums, 2, axis=-1)
    return divide(abs(gaps).sum(-1), counts.sum(-1))


def _auroc_score(probabilities: np.ndarray, is_true: np.ndarray, clusters: np.ndarray, value: float) -> Score:
    """Macro AUROC of K classes or labels, each of which occurs and is missing in some instance."""
    of_true, of_others = _placements(probabilities, is_true)
    areas = of_true.sum(0) / is_true.sum(0)  # (K,)
    parts = np.concatenate([of_true, of_others, is_true, ~is_true], axis=1)
    return Bootstrap(parts, clusters).score(_linearised_auroc(areas), value)


def _placements(probabilities: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) twice: for a true instance the share of others below it, for another the share of true ones above it.

    A tie counts a half; 0 where an instance is not of that side.
    """
    count = is_true.sum(0)
    among_all = rankdata(probabilities, axis=0)
    of_true, of_others = np.zeros_like(among_all), np.zeros_like(among_all)
    for k in range(is_true.shape[1]):
        for side, placed in ((is_true[:, k], of_true), (~is_true[:, k], of_others)):
            placed[side, k] = among_all[side, k] - rankdata(probabilities[side, k])
    others = len(is_true) - count
    return of_true / others, np.where(is_true, 0.0, 1 - of_others / count)


def _linearised_auroc(areas: np.ndarray) -> Statistic:
    """Near `areas` (K,) an area is the mean placement of true ones, plus that of the others, minus itself."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        of_true, of_others, count, others = np.split(sums, 4, axis=-1)
        found = divide(of_true, count) + divide(of_others, others) - areas
        return np.clip(_mean_of_defined(found), 0, 1)

    return statistic

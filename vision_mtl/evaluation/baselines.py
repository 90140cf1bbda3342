"""Scores that a task's test scores are compared with: the majority and chance, as docs/statistics.md defines them."""
# n test images, K classes or labels

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from vision_mtl.evaluation.predictions import TaskPredictions, instance_values
from vision_mtl.evaluation.scores import Score, score_measures
from vision_mtl.evaluation.statistics import paired_difference, permutation_baseline


def baseline_metrics(found: TaskPredictions, train: Tensor, clusters: np.ndarray) -> dict[str, Any]:
    """Return `majority` and `chance`, each metric -> score, and `minus_majority`, the difference in the image values.

    `train` are the training images whose labels are used, `clusters` (n,) those of the test images. Empty without a
    label to train on.
    """
    if not len(train):
        return {}
    kind, constant = found.kind, majority_numbers(found, train)
    measures = kind.measures(constant, found.values)
    shown = {metric: measures[metric] for metric in {kind.image_metric, kind.headline} & measures.keys()}
    gain = paired_difference(instance_values(found), kind.image_values(constant, found.values), clusters)
    chance = chance_scores(found)
    return {
        "majority": {metric: score.to_json() for metric, score in score_measures(shown, clusters).items()},
        **({"chance": {metric: score.to_json() for metric, score in chance.items()}} if chance else {}),
        "minus_majority": gain.to_json(),
    }


def majority_numbers(found: TaskPredictions, train: Tensor) -> np.ndarray:
    """Return the numbers of always predicting what is most frequent in the labels of `train`, in the form of `found`.

    For numbers it is the median, for masks the class with most pixels, as pixel counts (n, K, K).
    """
    kind, target, rows = found.kind, found.target, train.numpy()
    if not kind.is_dense:
        return np.repeat(kind.constant(target.values[rows], target.num_outputs), len(found.indices), axis=0)
    _, classes, pixels = kind.occurrences(target.values[rows], target.masks)
    counts = found.numbers()
    constant = np.zeros_like(counts)
    constant[:, :, np.bincount(classes, pixels).argmax()] = counts.sum(2)
    return constant


def chance_scores(found: TaskPredictions) -> dict[str, Score]:
    """Return the expected score of the same predictions, shuffled over images, or over pixels; {} for numbers."""
    kind = found.kind
    if not kind.has_classes:
        return {}
    if not kind.is_dense:
        predicted = found.decisions().astype(np.int64)
        return {kind.image_metric: permutation_baseline(predicted, found.values)}
    counts = found.numbers().sum(0, dtype=np.float64)  # (K, K)
    expected = np.outer(counts.sum(1), counts.sum(0)) / max(counts.sum(), 1)
    n, measures = len(found.indices), kind.measures(expected[None], found.values[:1])
    return {
        metric: Score(float(measure.statistic(measure.parts.sum(0))), None, None, n, n)
        for metric, measure in measures.items()
    }

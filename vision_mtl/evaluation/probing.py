"""Probing one task: choose layer, pooling, strength and neighbours on validation images, then predict test images.

Only the functions called `score_*` read test labels, after all predictions are made.
"""
# N rows of features, n of them test images, D feature width, K classes or labels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.knn import knn_votes
from vision_mtl.evaluation.linear_probe import (
    DEFAULT_STRENGTH,
    STRENGTHS,
    LinearProbe,
    fit_linear_probe,
    standardise,
)
from vision_mtl.evaluation.scores import Score, mean_score, score_measures
from vision_mtl.evaluation.statistics import paired_difference, permutation_baseline

NEIGHBOURS = (20, 10, 5, 1)  # the smoothest first: a tie goes to the first
Key = tuple[int, str]  # layer, pooling


@dataclass(frozen=True)
class ProbeTask:
    """One task over N rows of features.

    `values` are classes (N,) int64, labels (N, K) of 0 and 1, or numbers (N,); `train`, `val` and `test` are the rows
    of each split. Values of other rows are not read.
    """

    kind: str
    num_outputs: int
    values: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class ProbePrediction:
    """One method's prediction for the test images, (n, K) probabilities or (n,) values, and its chosen settings."""

    prediction: np.ndarray
    chosen: dict[str, Any] = field(default_factory=dict)


def choose_features(
    candidates: Mapping[Key, Tensor], task: ProbeTask, rows: np.ndarray
) -> tuple[Key, dict[Key, float]]:
    """Return the best layer and pooling of features (N, D) by a linear probe's validation score, and all scores.

    The probe is fitted to the training images `rows` and has one strength. A tie goes to the deeper layer, then to the
    first pooling; without a validation image all candidates are tied.
    """
    ranked = sorted(candidates, key=lambda key: -key[0])
    if len(task.val) == 0 or len(ranked) == 1:
        return ranked[0], {}
    kind, truth = label_kind(task.kind), task.values[task.val]
    scores: dict[Key, float] = {}
    for key in ranked:
        x = standardise(candidates[key].numpy(), task.train)
        probe = fit_probe(x, task, rows, strengths=(DEFAULT_STRENGTH,))
        scores[key] = kind.validation_score(probe.predict(x[task.val]), truth)
    return max(ranked, key=scores.__getitem__), scores


def predict_linear(features: np.ndarray, task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """Predict with the linear probe on standardised features (N, D), fitted to the training images `rows`."""
    probe = fit_probe(features, task, rows)
    chosen = {"C": probe.strength, "val_score": probe.val_score, "converged": probe.converged}
    return ProbePrediction(probe.predict(features[task.test]), chosen)


def predict_knn(features: Tensor, task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """Predict with the nearest of the training images `rows` by features (N, D); k is chosen on validation images."""
    kind = label_kind(task.kind)
    offset, scale = kind.statistics(task.values[rows])  # numbers vote in float32, so they are standardised
    own = kind.neighbour_votes(task.values[rows], task.num_outputs)
    votes = torch.as_tensor(own if kind.has_classes else (own - offset) / scale, dtype=torch.float32)

    def predict(queries: np.ndarray, k: int) -> np.ndarray:
        numbers = knn_votes(features[rows], votes, features[queries], k=k).numpy().astype(np.float64)
        return numbers if kind.has_classes else numbers[:, 0] * scale + offset

    choices = [k for k in NEIGHBOURS if k <= len(rows)]
    if len(task.val) == 0:
        return ProbePrediction(predict(task.test, choices[-1]), {"k": choices[-1], "val_score": None})
    truth = task.values[task.val]
    scores = {k: kind.validation_score(predict(task.val, k), truth) for k in choices}
    k = max(scores, key=scores.__getitem__)
    return ProbePrediction(predict(task.test, k), {"k": k, "val_score": scores[k]})


def predict_constant(task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """Predict without images from the labels of `rows` (n,): the largest class, label frequencies or the median."""
    kind, labels, count = label_kind(task.kind), task.values[rows], len(task.test)
    constant = kind.constant(labels, task.num_outputs)  # (1, K)
    if not kind.has_classes:
        return ProbePrediction(np.full(count, constant[0, 0]), {"value": float(constant[0, 0])})
    chosen = {"class": int(constant.argmax())} if kind.one_class else {}
    return ProbePrediction(np.tile(constant, (count, 1)), chosen)


def score_task(
    task: ProbeTask, predictions: Mapping[str, ProbePrediction], clusters: np.ndarray
) -> dict[str, dict[str, Score]]:
    """Return the scores of every method and of the baselines on the test images: method -> metric -> score.

    `predictions` has `linear`, further methods, and `majority`, the constant prediction. Added are `chance`, from the
    marginals of `linear`, and `linear_minus_random_init`, unless random weights are what was probed. `clusters` (n,)
    are those of the test images.
    """
    learned = {method: own for method, own in predictions.items() if method != "majority"}
    found = {method: score_prediction(task, own, clusters) for method, own in learned.items()}
    found["majority"] = score_constant(task, predictions["majority"], clusters)
    linear = predictions["linear"]
    if label_kind(task.kind).has_classes:
        found["chance"] = score_chance(task, linear)
    random_init = predictions.get("linear_random_init", linear)
    if random_init is not linear:
        found["linear_minus_random_init"] = score_difference(task, linear, random_init, clusters)
    return found


def score_prediction(task: ProbeTask, method: ProbePrediction, clusters: np.ndarray) -> dict[str, Score]:
    """The metrics of the task's kind on its test images, whose clusters are (n,)."""
    measures = label_kind(task.kind).measures(method.prediction, task.values[task.test])
    return score_measures(measures, clusters)


def score_constant(task: ProbeTask, method: ProbePrediction, clusters: np.ndarray) -> dict[str, Score]:
    """The one meaningful metric of a constant prediction, accuracy or mean absolute error; `clusters` (n,)."""
    return {label_kind(task.kind).image_metric: mean_score(metric_values(task, method), clusters)}


def score_chance(task: ProbeTask, method: ProbePrediction) -> dict[str, Score]:
    """The accuracy expected by chance from the marginals of the predicted classes or labels."""
    predicted = label_kind(task.kind).decide(method.prediction).astype(np.int64)
    return {"accuracy": permutation_baseline(predicted, task.values[task.test])}


def score_difference(
    task: ProbeTask, method: ProbePrediction, other: ProbePrediction, clusters: np.ndarray
) -> dict[str, Score]:
    """`method` minus `other` in accuracy or mean absolute error on the same test images; `clusters` (n,)."""
    values = metric_values(task, method), metric_values(task, other)
    return {label_kind(task.kind).image_metric: paired_difference(*values, clusters)}


def metric_values(task: ProbeTask, method: ProbePrediction) -> np.ndarray:
    """(n,) for each test image: 1 if right and 0 if wrong, the share of right labels, or the absolute error."""
    kind = label_kind(task.kind)
    values = kind.image_values(method.prediction, task.values[task.test])
    return values if kind.has_classes else -values


def fit_probe(x: np.ndarray, task: ProbeTask, rows: np.ndarray, strengths: Sequence[float] = STRENGTHS) -> LinearProbe:
    """Fit a linear probe to `rows` of standardised features (N, D), its strength chosen on validation images."""
    y = task.values
    return fit_linear_probe(
        task.kind, x[rows], y[rows], x[task.val], y[task.val], num_outputs=task.num_outputs, strengths=strengths
    )

"""Probing one task: choose layer, pooling, strength and neighbours on validation images, answer for the test images.

Nothing here reads a test label: answers come first, `score_answer` compares them at the end.
"""
# N rows of features, n of them in question, D feature width, K classes or labels

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

NEIGHBOURS = (20, 10, 5, 1)  # the smoothest first: a tie goes to it
Key = tuple[int, str]  # layer, pooling


@dataclass(frozen=True)
class ProbeTask:
    """One task over N rows of features.

    `values` are classes (N,) int64, labels (N, K) of 0 and 1, or numbers (N,), read at the rows of a side only;
    `train`, `val` and `test` are the rows of each side.
    """

    kind: str
    num_outputs: int
    values: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class ProbePrediction:
    """What one method says of the test images, (n, K) probabilities or (n,) values, and what was chosen for it."""

    prediction: np.ndarray
    chosen: dict[str, Any] = field(default_factory=dict)


def choose_features(candidates: Mapping[Key, Tensor], task: ProbeTask) -> tuple[Key, dict[Key, float]]:
    """The layer and pooling whose features (N, D) a linear probe at one strength validates best; the score of each.

    A tie goes to the deeper layer, then to the pooling named first. Without a validation image that is all of them.
    """
    ranked = sorted(candidates, key=lambda key: -key[0])
    if len(task.val) == 0 or len(ranked) == 1:
        return ranked[0], {}
    scores = {}
    for key in ranked:
        x = standardise(candidates[key].numpy(), task.train)
        scores[key] = fit_probe(x, task, task.train, strengths=(DEFAULT_STRENGTH,)).val_score
    return max(ranked, key=scores.__getitem__), scores


def predict_linear(features: np.ndarray, task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """The linear probe on standardised features (N, D), fitted to the training images `rows`."""
    probe = fit_probe(features, task, rows)
    chosen = {"C": probe.strength, "val_score": probe.val_score, "converged": probe.converged}
    return ProbePrediction(probe.predict(features[task.test]), chosen)


def knn_answer(features: Tensor, task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """The nearest of the training images `rows` by features (N, D); k is chosen on validation images."""
    kind = label_kind(task.kind)
    votes = torch.as_tensor(kind.neighbour_votes(task.values[rows], task.num_outputs), dtype=torch.float32)

    def ask(asked: np.ndarray, k: int) -> np.ndarray:
        said = knn_votes(features[rows], votes, features[asked], k=k).numpy().astype(np.float64)
        return said if kind.has_classes else said[:, 0]

    choices = [k for k in NEIGHBOURS if k <= len(rows)]
    truth = task.values[task.val]
    scores: dict[int, float | None] = {choices[-1]: None}
    if len(task.val):
        scores = {k: kind.validation_score(ask(task.val, k), truth) for k in choices}
    k = max(scores, key=scores.__getitem__)
    return ProbePrediction(ask(task.test, k), {"k": k, "val_score": scores[k]})


def constant_answer(task: ProbeTask, rows: np.ndarray) -> ProbePrediction:
    """The best guess without an image: the commonest class, each label's frequency, or the median number; `rows`
    (n,) may be seen."""
    kind, known, count = label_kind(task.kind), task.values[rows], len(task.test)
    guess = kind.constant(known, task.num_outputs)  # (1, K)
    if not kind.has_classes:
        return ProbePrediction(np.full(count, guess[0, 0]), {"value": float(guess[0, 0])})
    chosen = {"class": int(guess.argmax())} if kind.one_class else {}
    return ProbePrediction(np.tile(guess, (count, 1)), chosen)


def score_task(
    task: ProbeTask, answers: Mapping[str, ProbePrediction], clusters: np.ndarray
) -> dict[str, dict[str, Score]]:
    """Every method's scores on the test images, and what they are to be held against: method -> metric -> score.

    `answers` names `linear`, any further methods, and `majority`, the constant answer. Added are `chance`, by the
    marginals of `linear`, and `linear_minus_random_init`, unless random weights are what was probed. `clusters` (n,)
    are those of the test images. Reads the test labels.
    """
    learned = {method: answer for method, answer in answers.items() if method != "majority"}
    found = {method: score_answer(task, answer, clusters) for method, answer in learned.items()}
    found["majority"] = score_constant(task, answers["majority"], clusters)
    if label_kind(task.kind).has_classes:
        found["chance"] = score_chance(task, answers["linear"])
    if answers.get("linear_random_init", answers["linear"]) is not answers["linear"]:
        difference = score_difference(task, answers["linear"], answers["linear_random_init"], clusters)
        found["linear_minus_random_init"] = difference
    return found


def score_answer(task: ProbeTask, answer: ProbePrediction, clusters: np.ndarray) -> dict[str, Score]:
    """The metrics of the task's kind on its test images, whose clusters are (n,). Reads the test labels."""
    measures = label_kind(task.kind).measures(answer.prediction, task.values[task.test])
    return score_measures(measures, clusters)


def score_constant(task: ProbeTask, answer: ProbePrediction, clusters: np.ndarray) -> dict[str, Score]:
    """The one metric that means something for a constant answer: its accuracy, or mean absolute error; `clusters`
    (n,)."""
    return {label_kind(task.kind).image_metric: mean_score(agreement(task, answer), clusters)}


def score_chance(task: ProbeTask, answer: ProbePrediction) -> dict[str, Score]:
    """The accuracy of classes or labels that the answer's own marginals give by chance."""
    named = label_kind(task.kind).decide(answer.prediction).astype(np.int64)
    return {"accuracy": permutation_baseline(named, task.values[task.test])}


def score_difference(
    task: ProbeTask, answer: ProbePrediction, other: ProbePrediction, clusters: np.ndarray
) -> dict[str, Score]:
    """`answer` minus `other` on the same test images: of their accuracy, or mean absolute error; clusters (n,)."""
    values = agreement(task, answer), agreement(task, other)
    return {label_kind(task.kind).image_metric: paired_difference(*values, clusters)}


def agreement(task: ProbeTask, answer: ProbePrediction) -> np.ndarray:
    """(n,) for each test image: right or not, the share of its labels that are right, or the absolute error."""
    kind = label_kind(task.kind)
    values = kind.image_values(answer.prediction, task.values[task.test])
    return values if kind.has_classes else -values


def fit_probe(x: np.ndarray, task: ProbeTask, rows: np.ndarray, strengths: Sequence[float] = STRENGTHS) -> LinearProbe:
    """The linear probe on standardised features (N, D), fitted to `rows`, its strength chosen on validation images."""
    y = task.values
    return fit_linear_probe(
        task.kind, x[rows], y[rows], x[task.val], y[task.val], num_outputs=task.num_outputs, strengths=strengths
    )

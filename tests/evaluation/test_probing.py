"""Probing a task: choices by validation, predictions without test labels, and every kind of label."""

import numpy as np
import pytest
import torch

from vision_mtl.evaluation.linear_probe import standardise
from vision_mtl.evaluation.probing import (
    ProbeTask,
    choose_features,
    predict_constant,
    predict_knn,
    predict_linear,
    score_task,
)

SPLITS = {"train": np.arange(0, 120), "val": np.arange(120, 180), "test": np.arange(180, 240)}
HIDDEN = ["single_label", "multi_label", "regression"]


def task_of(kind: str) -> tuple[torch.Tensor, ProbeTask]:
    """Features (240, 6) that determine the labels, and the task."""
    random = np.random.default_rng(0)
    x = random.normal(size=(240, 6)).astype(np.float32)
    values = {
        "single_label": x[:, :3].argmax(1),
        "multi_label": (x[:, :3] > 0).astype(np.int8),
        "regression": (2 * x[:, 0] + 5).astype(np.float32),
    }[kind]
    outputs = 1 if kind == "regression" else 3
    return torch.from_numpy(x), ProbeTask(kind, outputs, values, **SPLITS)


def predictions_of(x: torch.Tensor, task: ProbeTask) -> dict:
    scaled = standardise(x.numpy(), task.train)
    noise = np.random.default_rng(1).normal(size=scaled.shape)
    return {
        "linear": predict_linear(scaled, task, task.train),
        "knn": predict_knn(x, task, task.train),
        "linear_random_init": predict_linear(noise, task, task.train),
        "majority": predict_constant(task, task.train),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", HIDDEN)
def test_predictions_do_not_use_test_labels(kind: str) -> None:
    x, task = task_of(kind)
    hidden = task.values.copy()
    hidden[task.test] = 0 if kind != "regression" else np.nan
    blind = ProbeTask(kind, task.num_outputs, hidden, **SPLITS)
    for method, found in predictions_of(x, task).items():
        np.testing.assert_array_equal(found.prediction, predictions_of(x, blind)[method].prediction)


@pytest.mark.parametrize(("kind", "metric"), [("single_label", "accuracy"), ("multi_label", "auroc")])
def test_informative_features_beat_noise_and_chance(kind: str, metric: str) -> None:
    x, task = task_of(kind)
    found = score_task(task, predictions_of(x, task), np.arange(60))
    assert found["linear"][metric].value > 0.85
    assert found["linear"]["accuracy"].low > found["chance"]["accuracy"].high
    assert found["linear"]["accuracy"].low > found["majority"]["accuracy"].high
    assert found["linear_minus_random_init"]["accuracy"].low > 0.1
    difference = found["linear"]["accuracy"].value - found["linear_random_init"]["accuracy"].value
    assert found["linear_minus_random_init"]["accuracy"].value == pytest.approx(difference, abs=1e-6)
    assert 0.5 < found["knn"]["accuracy"].value <= 1


def test_numbers_are_scored_by_their_error() -> None:
    x, task = task_of("regression")
    found = score_task(task, predictions_of(x, task), np.arange(60))
    assert found["linear"]["mae"].value < 0.1 < found["knn"]["mae"].value < found["majority"]["mae"].value
    median = np.median(task.values[task.train])
    assert found["majority"]["mae"].value == pytest.approx(abs(task.values[task.test] - median).mean())
    assert found["linear_minus_random_init"]["mae"].high < 0 and "chance" not in found


def test_random_weights_are_not_compared_with_themselves() -> None:
    x, task = task_of("single_label")
    predictions = predictions_of(x, task)
    predictions["linear_random_init"] = predictions["linear"]
    assert "linear_minus_random_init" not in score_task(task, predictions, np.arange(60))


def test_the_layer_is_chosen_by_validation_and_ties_go_deeper() -> None:
    x, task = task_of("single_label")
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=x.shape).astype(np.float32))
    candidates = {(0, "mean"): noise, (1, "mean"): noise, (1, "max"): x, (2, "mean"): noise}
    key, scores = choose_features(candidates, task, task.train)
    assert key == (1, "max") and scores[key] == max(scores.values())
    assert choose_features({(0, "mean"): x, (2, "mean"): x, (2, "max"): x}, task, task.train)[0] == (2, "mean")
    blind = ProbeTask(task.kind, 3, task.values, task.train, task.val[:0], task.test)
    assert choose_features({(0, "mean"): x, (2, "mean"): noise}, blind, task.train) == ((2, "mean"), {})


def test_k_is_chosen_by_validation_up_to_the_number_of_images() -> None:
    x, task = task_of("single_label")
    few = predict_knn(x, task, task.train[:7])
    assert few.chosen["k"] in (1, 5)
    blind = ProbeTask(task.kind, 3, task.values, task.train, task.val[:0], task.test)
    assert predict_knn(x, blind, task.train).chosen == {"k": 1, "val_score": None}


def test_constant_predictions() -> None:
    values = np.array([0, 1, 1, 2])
    task = ProbeTask("single_label", 3, values, np.arange(3), np.arange(0), np.array([3]))
    assert predict_constant(task, task.train).prediction.tolist() == [[0, 1, 0]]

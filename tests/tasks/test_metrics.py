"""Metrics against scikit-learn and torchmetrics, and their intervals against a slow bootstrap."""

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torchmetrics.functional import classification, regression

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.scores import Score, proportion, score_measures
from vision_mtl.tasks import class_metrics
from vision_mtl.tasks.regression import r2


def scores(kind: str, numbers: np.ndarray, values: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    return score_measures(label_kind(kind).measures(numbers, values), clusters)


def drawn(n: int, k: int, seed: int = 0, signal: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return informative probabilities (n, k) and the classes (n,)."""
    random = np.random.default_rng(seed)
    true = random.integers(k, size=n)
    scores = random.normal(size=(n, k))
    scores[np.arange(n), true] += signal
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return probabilities, true


@pytest.mark.parametrize("k", [2, 3, 7])
def test_classification_agrees_with_scikit_learn(k: int) -> None:
    p, true = drawn(240, k)
    found = scores("single_label", p, true, np.arange(240))
    pred = p.argmax(1)
    area = oracle.roc_auc_score(true, p[:, 1] if k == 2 else p, multi_class="ovr")
    expected = {
        "accuracy": oracle.accuracy_score(true, pred),
        "balanced_accuracy": oracle.balanced_accuracy_score(true, pred),
        "macro_f1": oracle.f1_score(true, pred, average="macro"),
        "auroc": area,
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-6)
    assert all(s.low <= s.value <= s.high and s.n == 240 for s in found.values())


def test_calibration_error_by_hand() -> None:
    # two bins of 15: confidence 0.9 right half of the time, 0.6 always right
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = scores("single_label", p, np.array([0, 1, 0, 0]), np.arange(4))
    assert found["calibration_error"].value == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1)) / 4)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_one_class_agrees_with_torchmetrics(k: int) -> None:
    p, true = drawn(300, k)
    true = np.where(true == 4, 0, true)  # of five classes, the last never occurs
    found = scores("single_label", p, true, np.arange(300))
    predicted, truth, size = torch.as_tensor(np.pad(p, ((0, 0), (0, k == 1)))), torch.as_tensor(true), max(k, 2)
    recall = classification.multiclass_recall(predicted, truth, size, average="none").numpy()[np.unique(true)]
    expected = {
        "accuracy": float(classification.multiclass_accuracy(predicted, truth, size, average="micro")),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(classification.multiclass_f1_score(predicted, truth, size, average="macro")),
        "calibration_error": float(classification.multiclass_calibration_error(predicted, truth, size, n_bins=15)),
    }
    if k == 2:
        expected["auroc"] = float(classification.multiclass_auroc(predicted, truth, size, average="macro"))
    assert {name: score.value for name, score in found.items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_several_labels_agree_with_torchmetrics(k: int) -> None:
    random = np.random.default_rng(0)
    true = (random.random((200, k)) < ([0.5, 0.3, 0.0, 0.0] if k == 4 else [0.5])).astype(np.int8)
    p = np.clip(0.4 * true + 0.8 * random.random((200, k)), 0, 1)
    if k == 4:
        p[:, 3] *= 0.5  # the last label neither occurs nor is predicted
    found = scores("multi_label", p, true, np.arange(200))
    predicted, truth = (torch.as_tensor(np.concatenate([v, v], 1) if k == 1 else v) for v in (p, true.astype(np.int64)))
    size = predicted.shape[1]
    areas = [float(classification.binary_auroc(predicted[:, c], truth[:, c])) for c in range(min(k, 2))]
    assert {name: score.value for name, score in found.items()} == pytest.approx(
        {
            "accuracy": float(classification.multilabel_accuracy(predicted, truth, size, average="macro")),
            "macro_f1": float(classification.multilabel_f1_score(predicted, truth, size, average="macro")),
            "auroc": np.mean(areas),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_a_vote_that_rounding_puts_above_1_is_still_a_probability(kind: str) -> None:
    """torchmetrics takes such numbers for logits, for which 0.2 would be a positive decision."""
    p = np.array([[1.0, 0.0], [0.2, 0.8], [0.9, 0.1], [1.0, 0.0]])
    values = np.array([0, 1, 0, 0])
    true = values if kind == "single_label" else np.eye(2, dtype=np.int8)[values]
    exact, found = (scores(kind, numbers, true, np.arange(4)) for numbers in (p, np.where(p == 1, 1 + 1e-7, p)))
    assert found["accuracy"].value == 1
    for name, score in exact.items():
        assert found[name].value == pytest.approx(score.value, abs=1e-6)
        assert (found[name].low, found[name].high) == pytest.approx((score.low, score.high), abs=1e-6)


def test_numbers_agree_with_torchmetrics() -> None:
    random = np.random.default_rng(0)
    true = random.normal(170, 12, size=500).astype(np.float32)
    pred = true + random.normal(size=500)
    found = scores("regression", pred, true, np.arange(500))
    predicted, truth = (torch.as_tensor(v, dtype=torch.float64) for v in (pred, true))
    assert found["mae"].value == pytest.approx(float(regression.mean_absolute_error(predicted, truth)), rel=1e-12)
    assert found["r2"].value == pytest.approx(float(regression.r2_score(predicted, truth)), rel=1e-12)


def test_placements_average_to_the_areas() -> None:
    p, true = drawn(300, 5)
    is_true = true[:, None] == np.arange(5)
    of_true, of_others = class_metrics.placements(p, is_true)
    areas = [oracle.roc_auc_score(is_true[:, k], p[:, k]) for k in range(5)]
    assert of_true.sum(0) / is_true.sum(0) == pytest.approx(areas)
    assert of_others.sum(0) / (~is_true).sum(0) == pytest.approx(areas)


def test_classes_that_are_missing() -> None:
    p, true = drawn(60, 4)
    rare = scores("single_label", p, np.where(true == 3, 0, true), np.arange(60))
    assert "auroc" not in rare
    recalls = [
        (p.argmax(1)[true_k] == k).mean() for k in range(3) if (true_k := np.where(true == 3, 0, true) == k).any()
    ]
    assert rare["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    one = scores("single_label", np.ones((5, 1)), np.zeros(5, np.int64), np.arange(5))
    assert one["accuracy"].value == one["balanced_accuracy"].value == 1


def test_accuracy_is_exact_for_single_images_and_bootstrapped_for_clusters() -> None:
    p, true = drawn(100, 3)
    exact = proportion(p.argmax(1) == true)
    assert scores("single_label", p, true, np.arange(100))["accuracy"] == exact
    wide = scores("single_label", np.repeat(p, 5, 0), np.repeat(true, 5), np.repeat(np.arange(100), 5))
    assert wide["accuracy"].num_clusters == 100 and wide["accuracy"].n == 500
    assert (wide["accuracy"].low, wide["accuracy"].high) == pytest.approx((exact.low, exact.high), abs=0.02)


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "auroc"])
def test_intervals_are_those_of_a_slow_bootstrap(name: str) -> None:
    p, true = drawn(150, 4)
    clusters = np.repeat(np.arange(75), 2)
    score = scores("single_label", p, true, clusters)[name]
    metric = {
        "balanced_accuracy": lambda rows: oracle.balanced_accuracy_score(true[rows], p[rows].argmax(1)),
        "macro_f1": lambda rows: oracle.f1_score(true[rows], p[rows].argmax(1), average="macro"),
        "auroc": lambda rows: oracle.roc_auc_score(true[rows], p[rows], multi_class="ovr"),
    }[name]
    random = np.random.default_rng(1)
    drawn_clusters = random.integers(75, size=(400, 75))
    values = [metric(np.concatenate([2 * chosen, 2 * chosen + 1])) for chosen in drawn_clusters]
    width = score.high - score.low
    assert np.quantile(values, [0.025, 0.975]) == pytest.approx([score.low, score.high], abs=0.15 * width)


def test_an_interval_of_a_whole_bootstrap_is_quick() -> None:
    import time

    p, true = drawn(1500, 40)
    scores("single_label", p[:200], true[:200], np.arange(200))
    start = time.perf_counter()
    scores("single_label", p, true, np.arange(1500))
    assert time.perf_counter() - start < 3


def test_several_labels_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    true = (random.random((200, 4)) < [0.5, 0.3, 0.2, 0.0]).astype(np.int8)  # the last label never occurs
    p = np.clip(0.4 * true + 0.8 * random.random((200, 4)), 0, 1)
    found = scores("multi_label", p, true, np.arange(200))
    assert found["accuracy"].value == pytest.approx(((p > 0.5) == true).mean(), abs=1e-6)
    assert found["auroc"].value == pytest.approx(oracle.roc_auc_score(true[:, :3], p[:, :3], average="macro"), abs=1e-6)
    expected = oracle.f1_score(true, p > 0.5, average="macro", zero_division=0)
    assert found["macro_f1"].value == pytest.approx(expected, abs=1e-6)
    assert all(s.low <= s.value <= s.high for s in found.values())
    single = scores("multi_label", p[:, :1], true[:, :1], np.arange(200))
    assert single["auroc"].value == pytest.approx(oracle.roc_auc_score(true[:, 0], p[:, 0]), abs=1e-6)
    assert "auroc" not in scores("multi_label", p[:, 3:], true[:, 3:], np.arange(200))


def test_numbers_by_hand() -> None:
    found = scores("regression", np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 3.0]), np.arange(3))
    assert found["mae"].value == pytest.approx(1)
    assert found["r2"].value == pytest.approx(oracle.r2_score([1, 3, 3], [1, 2, 5]))
    assert "r2" not in scores("regression", np.array([1.0, 2.0]), np.array([3.0, 3.0]), np.arange(2))
    assert r2(np.array([[0, 1, 0.0, 1, 1], [1, 1, 1.0, -1, 1]]).sum(0)) == 0.5


def test_masks_by_hand() -> None:
    # two images, three classes, the last one absent
    confusion = np.array([[[4, 1, 0], [0, 5, 0], [0, 0, 0]], [[2, 3, 0], [1, 4, 0], [0, 0, 0]]])
    found = scores("dense", confusion, np.arange(2), np.arange(2))
    assert found["pixel_accuracy"].value == 15 / 20
    assert found["mean_iou"].value == pytest.approx(np.mean([6 / (10 + 7 - 6), 9 / (10 + 13 - 9)]))
    assert found["mean_iou"].n == 2

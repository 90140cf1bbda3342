"""Metrics against scikit-learn, and their intervals against a bootstrap written the slow way."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from vision_mtl.evaluation import metrics
from vision_mtl.evaluation.metrics import (
    classification_metrics,
    dense_metrics,
    multi_label_metrics,
    regression_metrics,
)
from vision_mtl.evaluation.scores import Bootstrap, proportion


def drawn(n: int, k: int, seed: int = 0, signal: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, k) that know something, and the classes (n,)."""
    random = np.random.default_rng(seed)
    true = random.integers(k, size=n)
    scores = random.normal(size=(n, k))
    scores[np.arange(n), true] += signal
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return probabilities, true


@pytest.mark.parametrize("k", [2, 3, 7])
def test_classification_agrees_with_scikit_learn(k: int) -> None:
    p, true = drawn(240, k)
    found = classification_metrics(p, true, np.arange(240))
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
    found = classification_metrics(p, np.array([0, 1, 0, 0]), np.arange(4))
    assert found["calibration_error"].value == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1)) / 4)


def test_the_sums_give_the_values_that_torchmetrics_gives() -> None:
    p, true = drawn(300, 5)
    is_true, named = (values[:, None] == np.arange(5) for values in (true, p.argmax(1)))
    found = classification_metrics(p, true, np.arange(300))
    counts = np.concatenate([named & is_true, is_true, named], axis=1).sum(0)
    assert metrics._balanced_accuracy(counts) == pytest.approx(found["balanced_accuracy"].value, abs=1e-6)
    assert metrics._macro_f1(counts) == pytest.approx(found["macro_f1"].value, abs=1e-6)
    bins = metrics._calibration_parts(p.max(1), p.argmax(1) == true).sum(0)
    assert metrics._calibration_error(bins) == pytest.approx(found["calibration_error"].value, abs=1e-6)
    of_true, of_others = metrics._placements(p, is_true)
    areas = [oracle.roc_auc_score(is_true[:, k], p[:, k]) for k in range(5)]
    assert of_true.sum(0) / is_true.sum(0) == pytest.approx(areas)
    assert of_others.sum(0) / (~is_true).sum(0) == pytest.approx(areas)


def test_classes_that_are_missing() -> None:
    p, true = drawn(60, 4)
    rare = classification_metrics(p, np.where(true == 3, 0, true), np.arange(60))
    assert "auroc" not in rare
    recalls = [
        (p.argmax(1)[true_k] == k).mean() for k in range(3) if (true_k := np.where(true == 3, 0, true) == k).any()
    ]
    assert rare["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    one = classification_metrics(np.ones((5, 1)), np.zeros(5, np.int64), np.arange(5))
    assert one["accuracy"].value == one["balanced_accuracy"].value == 1


def test_accuracy_is_exact_for_single_images_and_bootstrapped_for_clusters() -> None:
    p, true = drawn(100, 3)
    exact = proportion(p.argmax(1) == true)
    assert classification_metrics(p, true, np.arange(100))["accuracy"] == exact
    wide = classification_metrics(np.repeat(p, 5, 0), np.repeat(true, 5), np.repeat(np.arange(100), 5))
    assert wide["accuracy"].num_clusters == 100 and wide["accuracy"].n == 500
    assert (wide["accuracy"].low, wide["accuracy"].high) == pytest.approx((exact.low, exact.high), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1", "auroc"])
def test_intervals_are_those_of_a_slow_bootstrap(name: str) -> None:
    p, true = drawn(150, 4)
    clusters = np.repeat(np.arange(75), 2)
    score = classification_metrics(p, true, clusters)[name]
    judge = {
        "balanced_accuracy": lambda rows: oracle.balanced_accuracy_score(true[rows], p[rows].argmax(1)),
        "macro_f1": lambda rows: oracle.f1_score(true[rows], p[rows].argmax(1), average="macro"),
        "auroc": lambda rows: oracle.roc_auc_score(true[rows], p[rows], multi_class="ovr"),
    }[name]
    random = np.random.default_rng(1)
    drawn_clusters = random.integers(75, size=(400, 75))
    values = [judge(np.concatenate([2 * chosen, 2 * chosen + 1])) for chosen in drawn_clusters]
    width = score.high - score.low
    assert np.quantile(values, [0.025, 0.975]) == pytest.approx([score.low, score.high], abs=0.15 * width)


def test_an_interval_of_a_whole_bootstrap_is_quick() -> None:
    import time

    p, true = drawn(1500, 40)
    classification_metrics(p[:200], true[:200], np.arange(200))
    start = time.perf_counter()
    classification_metrics(p, true, np.arange(1500))
    assert time.perf_counter() - start < 3


def test_several_labels_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    true = (random.random((200, 4)) < [0.5, 0.3, 0.2, 0.0]).astype(np.int8)  # the last label never occurs
    p = np.clip(0.4 * true + 0.8 * random.random((200, 4)), 0, 1)
    found = multi_label_metrics(p, true, np.arange(200))
    assert found["accuracy"].value == pytest.approx(((p > 0.5) == true).mean(), abs=1e-6)
    assert found["auroc"].value == pytest.approx(oracle.roc_auc_score(true[:, :3], p[:, :3], average="macro"), abs=1e-6)
    expected = oracle.f1_score(true, p > 0.5, average="macro", zero_division=0)
    assert found["macro_f1"].value == pytest.approx(expected, abs=1e-6)
    assert all(s.low <= s.value <= s.high for s in found.values())
    single = multi_label_metrics(p[:, :1], true[:, :1], np.arange(200))
    assert single["auroc"].value == pytest.approx(oracle.roc_auc_score(true[:, 0], p[:, 0]), abs=1e-6)
    assert "auroc" not in multi_label_metrics(p[:, 3:], true[:, 3:], np.arange(200))


def test_numbers_by_hand() -> None:
    found = regression_metrics(np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 3.0]), np.arange(3))
    assert found["mae"].value == pytest.approx(1)
    assert found["r2"].value == pytest.approx(oracle.r2_score([1, 3, 3], [1, 2, 5]))
    assert "r2" not in regression_metrics(np.array([1.0, 2.0]), np.array([3.0, 3.0]), np.arange(2))
    assert metrics._r2(Bootstrap(np.array([[0, 1, 0.0, 1, 1], [1, 1, 1.0, -1, 1]]), np.arange(2)).sums) == 0.5


def test_masks_by_hand() -> None:
    # two images, three classes, the last one nowhere
    confusion = np.array([[[4, 1, 0], [0, 5, 0], [0, 0, 0]], [[2, 3, 0], [1, 4, 0], [0, 0, 0]]])
    found = dense_metrics(confusion, np.arange(2))
    assert found["pixel_accuracy"].value == 15 / 20
    assert found["mean_iou"].value == pytest.approx(np.mean([6 / (10 + 7 - 6), 9 / (10 + 13 - 9)]))
    assert found["mean_iou"].n == 2

"""The majority and chance of a task's test scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vision_mtl.data.targets import Target
from vision_mtl.evaluation.baselines import baseline_metrics
from vision_mtl.evaluation.predictions import TaskPredictions

TRAIN, TEST = torch.arange(5), torch.arange(5, 15)


def baselines(target: Target, outputs: torch.Tensor) -> dict:
    return baseline_metrics(TaskPredictions(target, TEST, outputs), TRAIN, np.arange(10))


def test_the_majority_is_that_of_the_training_labels() -> None:
    true = np.array([0] * 7 + [1] * 3)
    target = Target("single_label", ["a", "b"], np.concatenate([[1, 1, 1, 0, 0], true]))
    said = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    found = baselines(target, torch.eye(2)[said])
    assert found["majority"]["accuracy"]["value"] == 0.3 and found["majority"].keys() == {"accuracy"}
    assert found["chance"]["accuracy"]["value"] == pytest.approx(0.6 * 0.7 + 0.4 * 0.3)
    assert found["minus_majority"]["value"] == pytest.approx(0.9 - 0.3) and found["minus_majority"]["low"] > 0


def test_of_several_labels_each_has_its_majority() -> None:
    values = np.array([[1, 0]] * 4 + [[0, 0]] + [[1, 0], [1, 1]] * 5, np.int8)
    outputs = torch.tensor([[1.0, -1.0], [1.0, 1.0]] * 5)
    found = baselines(Target("multi_label", ["p", "q"], values), outputs)
    assert found["majority"]["accuracy"]["value"] == 0.75 and found["majority"]["auroc"]["value"] == 0.5
    assert found["chance"]["accuracy"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert found["minus_majority"]["value"] == 0.25


def test_of_numbers_it_is_the_median_and_there_is_no_chance() -> None:
    values = np.array([0.0, 0, 2, 50, 60, *range(10)])
    found = baselines(Target("regression", [], values), torch.arange(10.0, dtype=torch.float64)[:, None] + 1)
    assert found["majority"]["mae"]["value"] == pytest.approx(abs(np.arange(10) - 2).mean())
    assert "chance" not in found and found["minus_majority"]["value"] == pytest.approx(3.1 - 1)


def test_of_masks_it_is_the_class_with_most_pixels() -> None:
    masks = np.zeros((15, 2, 2), np.uint8)
    masks[:5, 0] = 255  # not counted
    masks[0, 1] = masks[5:, 0] = 1
    counts = torch.tensor([[[2, 0], [1, 1]]]).repeat(10, 1, 1)  # rows true, columns predicted
    found = baselines(Target("dense", ["0", "1"], np.arange(15), masks), counts)
    assert found["majority"]["pixel_accuracy"]["value"] == 0.5 and found["majority"]["mean_iou"]["value"] == 0.25
    assert found["chance"]["pixel_accuracy"]["value"] == pytest.approx(0.5 * 0.75 + 0.5 * 0.25)
    assert found["chance"]["mean_iou"]["value"] == pytest.approx((0.375 / 0.875 + 0.125 / 0.625) / 2)
    assert found["minus_majority"]["value"] == pytest.approx(0.25)


def test_without_a_training_label_there_is_none() -> None:
    target = Target("single_label", ["a"], np.zeros(15, int))
    assert baseline_metrics(TaskPredictions(target, TEST, torch.ones(10, 1)), TRAIN[:0], np.arange(10)) == {}

"""Summaries of predictions by hand, and their words."""

from __future__ import annotations

import numpy as np
import pytest

from vision_mtl.inference.prediction_files import TaskOutput
from vision_mtl.inference.prediction_summary import PredictionSummary, summary_text


def summary(kind: str, predictions: list[dict]) -> dict:
    found = PredictionSummary(TaskOutput(kind, ["a", "b", "c"], ";", np.arange(3), 255, 2))
    for prediction in predictions:
        found.add(prediction)
    return found.to_json()


def test_classes_are_counted_with_shares_most_frequent_first() -> None:
    said = [("b", 0.9), ("c", 0.45), ("b", 0.4), ("b", 0.5)]
    found = summary("single_label", [{"class": name, "probability": p} for name, p in said])
    assert found["counts"] == {"b": 3, "c": 1} and list(found["shares"]) == ["b", "c"]
    assert summary_text(found) == "b: 3 (75 %), c: 1 (25 %); 2 with a probability below 50 %"


def test_images_without_a_class_are_counted_as_none() -> None:
    found = summary("multi_label", [{"classes": c, "probability": 0.6} for c in (["a", "b"], ["a"], [])])
    assert summary_text(found) == "a: 2 (67 %), b: 1 (33 %), none: 1 (33 %)" and "uncertain" not in found


def test_numbers_have_a_median_and_a_range() -> None:
    found = summary("regression", [{"value": value} for value in (4.0, 1.5, 2.25)])
    assert found == {"median": 2.25, "min": 1.5, "max": 4.0}
    assert summary_text(found) == "median 2.25, from 1.5 to 4"


def test_masks_have_shares_of_the_pixels() -> None:
    found = summary("dense", [{"shares": {"a": 0.2, "b": 0.8, "c": 0.0}}, {"shares": {"a": 0.0, "b": 0.99, "c": 0.01}}])
    assert list(found["shares"].values()) == pytest.approx([0.895, 0.1, 0.005])
    assert summary_text(found) == "b: 90 %, a: 10 %, c: under 1 % of the pixels"


def test_many_classes_are_cut_and_no_image_is_said() -> None:
    found = summary("single_label", [{"class": str(n), "probability": 1.0} for n in range(10)])
    assert summary_text(found).endswith("7: 1 (10 %), and 2 more") and summary_text(summary("dense", [])) == "no image"

"""Decisions, image values and displayed predictions of each kind, against values computed by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import label_kind


def test_one_class_by_hand() -> None:
    kind = label_kind("single_label")
    numbers = np.array([[0.2, 0.7, 0.1], [0.5, 0.5, 0.0]])
    assert kind.decide(numbers).tolist() == [1, 0]
    assert kind.image_values(numbers, np.array([1, 1])).tolist() == [1, 0]
    assert kind.prediction(numbers[0], ["a", "b", "c"]) == {
        "class": "b",
        "probability": 0.7,
        "probabilities": {"a": 0.2, "b": 0.7, "c": 0.1},
    }
    assert kind.constant(np.array([2, 1, 2]), 4).tolist() == [[0, 0, 1, 0]]
    assert kind.neighbour_votes(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert [part.tolist() for part in kind.occurrences(np.array([2, 0]), None)] == [[0, 1], [2, 0], [1, 1]]


def test_several_classes_by_hand() -> None:
    kind = label_kind("multi_label")
    numbers = np.array([[0.9, 0.4], [0.5, 0.2]])
    assert kind.decide(numbers).tolist() == [[True, False], [False, False]]
    assert kind.image_values(numbers, np.array([[1, 1], [0, 0]], np.int8)).tolist() == [0.5, 1]
    prediction = kind.prediction(numbers[0], ["a", "b"])
    assert prediction == {"classes": ["a"], "probability": 0.6, "probabilities": {"a": 0.9, "b": 0.4}}
    assert list(prediction) == ["classes", "probability", "probabilities"]
    assert kind.constant(np.array([[1, 0], [1, 1]], np.int8), 2).tolist() == [[1, 0.5]]
    assert kind.describe(np.array([0, 1], np.int8), ["a", "b"]) == {"classes": ["b"]}


def test_numbers_by_hand() -> None:
    kind = label_kind("regression")
    numbers, values = np.array([[1.5], [4.0]]), np.array([1.0, 6.0], np.float32)
    assert (
        kind.image_values(numbers, values).tolist() == kind.image_values(numbers[:, 0], values).tolist() == [-0.5, -2]
    )
    assert kind.prediction(numbers[0], []) == {"value": 1.5}
    assert kind.statistics(values) == (3.5, 2.5) and kind.statistics(values[:1]) == (1.0, 1.0)
    assert kind.constant(np.array([1.0, 2.0, 9.0]), 1).tolist() == [[2]]
    assert kind.goodness(np.array([-1.0, -1.0, 0.0]), np.array([2, 4, 12])) == pytest.approx(1 - (2 / 3) / (10 / 3))
    assert math.isnan(kind.missing)


def test_masks_by_hand() -> None:
    kind = label_kind("dense")
    numbers = np.array([[[0.9, 0.2], [0.6, 0.5]], [[0.1, 0.8], [0.4, 0.5]]])  # two classes of 2 x 2 pixels
    prediction = kind.prediction(numbers, ["0", "7"])
    assert prediction == {"probability": 0.7, "shares": {"0": 0.75, "7": 0.25}}
    labels = torch.tensor([[[0, 0], [1, -1]]])
    counts = kind.outputs_to_score(torch.from_numpy(numbers)[None], labels)
    assert counts.tolist() == [[[1, 1], [1, 0]]]
    assert kind.image_values(counts.numpy(), np.array([0])).tolist() == [1 / 3]
    masks = np.array([[[0, 0], [1, 255]]], np.uint8)
    assert [part.tolist() for part in kind.occurrences(np.array([0, 0]), masks)] == [
        [0, 0, 1, 1],
        [0, 1, 0, 1],
        [2, 1] * 2,
    ]


@pytest.mark.parametrize("text", ["3,5", "1.234,5", "1,234"])
def test_a_decimal_comma_is_explained(text: str) -> None:
    with pytest.raises(
        UserError, match=rf"found '{re.escape(text)}'.*" + ("" if "." in text else "write a decimal point")
    ):
        label_kind("regression").parse("x", [text], ["a.png"], " ")

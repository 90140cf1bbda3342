"""Labels of every kind by hand: labels, missing labels, and invalid ones."""

import numpy as np
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task
from vision_mtl.data.targets import Target, class_names_of, mask_tensor, parse_labels

FILES = ["a.png", "b.png", "c.png", "d.png"]


def parse(texts: list[str | None], **options: object) -> Target:
    return parse_labels("t", Task(source="csv/x.csv", **options), texts, FILES[: len(texts)])


def test_one_class() -> None:
    target = parse(["dog", None, "cat", "dog"])
    assert target.class_names == ["cat", "dog"] and target.num_outputs == 2
    assert target.values.tolist() == [1, -1, 0, 1]
    assert target.labelled.tolist() == [True, False, True, True]
    assert target.gather(torch.tensor([3, 1])).tolist() == [1, -1]
    assert [part.tolist() for part in target.occurrences()] == [[0, 2, 3], [1, 0, 1]]


def test_any_number_of_classes() -> None:
    target = parse(["red big", None, "none", "big  "], kind="multi_label")
    assert target.class_names == ["big", "red"]
    assert target.values.tolist() == [[1, 1], [-1, -1], [0, 0], [1, 0]]
    assert target.labelled.tolist() == [True, False, True, True]
    found = target.gather(torch.tensor([2, 0]))
    assert found.dtype == torch.float32 and found.tolist() == [[0, 0], [1, 1]]
    assert [part.tolist() for part in target.occurrences()] == [[0, 0, 3], [0, 1, 0]]


def test_classes_with_another_separator() -> None:
    target = parse(["big red; old", " ; ", "old"], kind="multi_label", separator=";")
    assert target.class_names == ["big red", "old"]
    assert target.values.tolist() == [[1, 1], [-1, -1], [0, 1]]


def test_numbers() -> None:
    target = parse(["1.5", None, "-2", "1e3"], kind="regression")
    assert target.class_names == [] and target.num_outputs == 1
    assert np.array_equal(target.values, np.array([1.5, np.nan, -2, 1000]), equal_nan=True)
    assert target.labelled.tolist() == [True, False, True, True]
    assert target.gather(torch.tensor([3, 0])).tolist() == [1000, 1.5]
    assert [part.tolist() for part in target.occurrences()] == [[0, 2, 3], [0, 0, 0]]


def masks() -> Target:
    pixels = np.array([[[0, 1], [1, 255]], [[2, 2], [2, 2]]], np.uint8)
    return Target("dense", ["0", "7", "9"], np.array([1, -1, 0]), pixels)


def test_masks() -> None:
    target = masks()
    assert target.labelled.tolist() == [True, False, True] and target.num_outputs == 3
    found = target.gather(torch.tensor([2, 0, 1]))
    assert found.dtype == torch.int64
    assert found.tolist() == [[[0, 1], [1, -1]], [[2, 2], [2, 2]], [[-1, -1], [-1, -1]]]
    assert [part.tolist() for part in target.occurrences()] == [[0, 2, 2], [2, 0, 1]]
    none = Target("dense", [], np.full(3, -1), np.zeros((0, 4, 4), np.uint8))  # every mask is refused
    assert not none.labelled.any() and [len(part) for part in none.occurrences()] == [0, 0]
    assert mask_tensor(target.masks)[0].tolist() == [[0, 1], [1, -1]]


@pytest.mark.parametrize(
    "target",
    [
        parse(["dog", None, "cat"]),
        parse(["x y", None, "none"], kind="multi_label"),
        parse(["1", None, "2"], kind="regression"),
        masks(),
    ],
    ids=lambda target: target.kind,
)
def test_spread_maps_items_to_images(target: Target) -> None:
    wide = target.spread(np.array([4, 1, 0]), 6)
    assert wide.values.dtype == target.values.dtype
    assert wide.labelled.tolist() == [True, False, False, False, True, False]
    assert torch.equal(wide.gather(torch.tensor([4, 0])), target.gather(torch.tensor([0, 2])))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tall", "is no number"),
        ("0x10", "is no number"),
        ("nan", "is not finite"),
        ("-inf", "is not finite"),
        ("Infinity", "is not finite"),
        ("1,5", "has a comma"),
        ("1,700,000", "has a comma"),
        ("1_000", "has an underscore"),
        ("1e400", "is out of range"),
        ("-1e39", "is out of range"),
        ("1e-50", "is out of range"),
    ],
)
def test_a_label_that_is_not_a_number_is_named(text: str, fault: str) -> None:
    words = (
        rf"task 't': a label of kind regression must be a finite number, .*found '{text}' of 'b\.png', which {fault}"
    )
    with pytest.raises(UserError, match=words):
        parse(["1", text], kind="regression")


def test_wrong_numbers_are_counted() -> None:
    with pytest.raises(UserError, match=r"'a' of 'a\.png', which is no number \(5 labels in all\)\."):
        parse_labels("t", Task(source="csv/x.csv", kind="regression"), list("abcde"), [f"{n}.png" for n in "abcde"])


@pytest.mark.parametrize(("text", "number"), [("1e5 ", 1e5), ("+.5", 0.5), ("-0", 0.0), ("3.4e38", 3.4e38), ("007", 7)])
def test_spellings_of_numbers(text: str, number: float) -> None:
    assert parse([text], kind="regression").values.tolist() == [number]


@pytest.mark.parametrize("start", ["9007199254740993", "1700000000000000000"])
def test_differences_that_float64_rounds_are_refused(start: str) -> None:
    with pytest.raises(UserError, match=r"labels lie within .* around .* so their differences are lost\. Subtract"):
        parse([str(int(start) + 300 * n) for n in range(4)], kind="regression")
    parse([start] * 4, kind="regression")  # equal labels are found by the checks of a task
    parse([str(int(start) + 10**15 * n) for n in range(4)], kind="regression")


def test_numbers_far_from_the_others_are_a_warning() -> None:
    values = np.array([20.0, 31, np.nan, 45, 28, 36, -9999])
    (text,) = label_kind("regression").warnings("age", values, [f"{n}.png" for n in range(7)])
    assert "1 labels lie far from the others, half of which are 22 to 34.75: -9999 of '6.png'" in text
    assert not label_kind("regression").warnings("age", values[:6], [""] * 6)
    assert not label_kind("regression").warnings("age", np.array([np.nan, 1.0, 1.0, 50.0, 1.0, 1.0]), [""] * 6)


def test_numbers_are_standardised_in_float64() -> None:
    seconds = [1_700_000_000 + n for n in range(24)]
    task = Task(source="csv/x.csv", kind="regression")
    target = parse_labels("t", task, list(map(str, seconds)), ["x.png"] * 24).in_unit_of(np.ones(24, bool))
    assert target.values.tolist() == seconds
    labels = target.gather(torch.arange(24)).double()
    np.testing.assert_allclose(labels * target.unit[1] + target.unit[0], seconds, rtol=0, atol=1e-5)


def test_invalid_sets_of_classes_are_named() -> None:
    with pytest.raises(UserError, match=r"the label of 'a\.png' must be 'none' or classes; found 'red none'"):
        parse(["red none"], kind="multi_label")
    with pytest.raises(UserError, match=r"task 't': every label is 'none'"):
        parse(["none", None], kind="multi_label")


def test_classes_are_in_order_of_number_or_alphabet() -> None:
    assert class_names_of(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert class_names_of(["10", "9", "a"]) == ["10", "9", "a"]
    assert class_names_of(["nan", "1"]) == ["1", "nan"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\); found 1\.0"),
        ({"weight": 0.0}, r"weight must be a finite number above 0; found 0\.0"),
        ({"weight": float("inf")}, "weight must be a finite number"),
        ({"ignore": -1}, "ignore must be 0 or more, a colour as #e0e0c0, or null; found -1"),
        ({"kind": "multi_label", "separator": ""}, "separator must not be empty"),
        (
            {"masks": "trimaps"},
            r"of kind single_label: masks is for kind dense \(add --tasks.NAME.kind dense\); found 'trimaps'",
        ),
        ({"kind": "regression", "label_smoothing": 0.1}, "label_smoothing is for kinds with classes"),
        ({"kind": "regression", "class_weights": "balanced"}, "class_weights is for kinds with classes"),
        ({"augment": "mirrored"}, r"unknown augment of the task on csv/x\.csv 'mirrored'\. Did you mean 'mirror'"),
    ],
)
def test_options_out_of_range_are_named(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Task(source="csv/x.csv", **options)

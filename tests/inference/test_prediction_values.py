"""Numbers and masks as predictions tell them: all digits of a number, masks in the colours of their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.inference.prediction_files import mask_picture, prediction_text, read_prediction, task_outputs

OPTIONS = {"ignore": 255, "separator": " "}


def output_of(kind: str, names: list[str], offset: float = 0.0, scale: float = 1.0, **options: object):
    spec = TaskHeadSpec(kind, max(len(names), 1), offset, scale)
    return task_outputs({"t": spec}, {"class_names": {"t": names}, "tasks": {"t": OPTIONS | options}})["t"]


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (1_700_000_011.123456789, 6.9, "1700000011.12346"),
        (31.299999237060547, 12.0, "31.3"),
        (3.0, 1.0, "3"),
        (0.000123456789, 1e-4, "0.000123457"),
        (1.23456789e39, 1e38, "1.234568e+39"),
        (-12345678.9, 1e7, "-12345700"),
    ],
)
def test_a_number_keeps_six_digits_of_the_labels_deviation(value: float, scale: float, text: str) -> None:
    output = output_of("regression", [], value, scale)
    found = read_prediction(output, np.array([value]))
    assert prediction_text(found, " ") == text and found["value"] == pytest.approx(value, abs=1e-5 * scale)


def test_masks_of_colour_classes_are_written_in_their_colours(tmp_path: Path) -> None:
    output = output_of("dense", ["#000000", "#e0e0c0", "#ff0000"])
    mask = np.array([[0, 1], [2, output.outside_value]], np.uint8)
    picture = mask_picture(output, mask)
    assert picture.mode == "RGB"
    assert np.asarray(picture).tolist() == [[[0, 0, 0], [224, 224, 192]], [[255, 0, 0], [1, 1, 1]]]
    numbers = mask_picture(output_of("dense", ["0", "7"]), np.array([[0, 7]], np.uint8))
    assert numbers.mode == "P" and np.asarray(numbers).tolist() == [[0, 7]]

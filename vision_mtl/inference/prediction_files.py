"""Read each task's numbers as predictions, and write them to the files of `--stage predict`."""
# K classes, H W pixels

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from PIL import Image

from vision_mtl.core.csv_escape import escape_cell
from vision_mtl.core.files import disk_error
from vision_mtl.core.text import file_stem
from vision_mtl.data.label_kinds import DIGITS, TaskHeadSpec, label_kind
from vision_mtl.data.resize import Fit, restore_mask
from vision_mtl.data.targets import IGNORED, NO_CLASS
from vision_mtl.inference.image_files import ImageFile
from vision_mtl.viz.predictions import mask_palette

MAX_PART = 240  # bytes of a file's name, without its suffix and number; file systems take 255
CSV, JSON, MASKS = "predictions.csv", "predictions.json", "masks"
OUTSIDE_COLOURS = [f"{grey:02x}" * 3 for grey in range(256)]  # of pixels outside the image: the first that is no class


@dataclass(frozen=True)
class TaskOutput:
    """How a task's numbers are read.

    `mask_values` (K,) uint8 are the values of the classes in a mask, `outside_value` that of pixels outside the image.
    `decimals` are those of a number: six digits of the labels' standard deviation, as float32 resolves.
    """

    kind: str
    class_names: list[str]
    separator: str
    mask_values: np.ndarray
    outside_value: int
    decimals: int = DIGITS

    @property
    def has_probability(self) -> bool:
        """True if predictions are classes, which have a probability."""
        return label_kind(self.kind).has_classes

    @property
    def one_class(self) -> bool:
        """True if each image gets exactly one class."""
        return label_kind(self.kind).one_class

    @property
    def is_dense(self) -> bool:
        """True if a prediction is a mask."""
        return label_kind(self.kind).is_dense


def task_outputs(specs: Mapping[str, TaskHeadSpec], state: Mapping[str, Any]) -> dict[str, TaskOutput]:
    """Return how each task of a checkpoint with metadata `state` is read."""
    found = {}
    for task, spec in specs.items():
        names, options = state["class_names"][task], state["tasks"][task]
        values = _mask_values(names)
        free = (options["ignore"], IGNORED, *range(256))
        outside = next(value for value in free if value in range(256) and value not in values)
        decimals = DIGITS - 1 - math.floor(math.log10(spec.scale))
        found[task] = TaskOutput(spec.kind, names, options["separator"], values, outside, decimals)
    return found


def _mask_values(class_names: list[str]) -> np.ndarray:
    """Return (K,) uint8: the values in the training masks, after which classes are named, or else 0 to K - 1."""
    if all(name.isdecimal() and int(name) < 256 for name in class_names):
        return np.array([int(name) for name in class_names], np.uint8)
    return np.arange(min(len(class_names), 256), dtype=np.uint8)


def read_prediction(output: TaskOutput, numbers: np.ndarray) -> dict[str, Any]:
    """Return the entry of `predictions.json` for one image's (K,) or (K, H, W) probabilities, or (1,) value."""
    found = label_kind(output.kind).prediction(numbers, output.class_names)
    return found | {"value": round(found["value"], output.decimals)} if "value" in found else found


def read_mask(output: TaskOutput, numbers: np.ndarray) -> np.ndarray:
    """Return the mask (H, W) uint8 of one image's probabilities (K, H, W)."""
    return output.mask_values[numbers.argmax(0)]


def mask_picture(output: TaskOutput, mask: np.ndarray) -> Image.Image:
    """Return a mask (H, W) uint8 as a palette image, or in colours if the training masks had them as classes."""
    colours = [name.removeprefix("#") for name in output.class_names]
    if not all(re.fullmatch("#[0-9a-f]{6}", name) for name in output.class_names):
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette(mask_palette().tobytes())
        return picture
    outside = next(colour for colour in OUTSIDE_COLOURS if colour not in colours)
    table = np.array([list(bytes.fromhex(colour)) for colour in [*colours, outside]], np.uint8)
    return Image.fromarray(table[np.minimum(mask, len(colours))])


def read_predictions(
    outputs: Mapping[str, TaskOutput], numbers: Mapping[str, np.ndarray]
) -> list[dict[str, dict[str, Any]]]:
    """Return each image's predictions by task from the numbers of B images; dense ones have a `mask` (H, W) uint8."""
    count = len(next(iter(numbers.values()))) if numbers else 0
    found = []
    for row in range(count):
        predictions = {task: read_prediction(output, numbers[task][row]) for task, output in outputs.items()}
        for task, output in outputs.items():
            if output.is_dense:
                predictions[task]["mask"] = read_mask(output, numbers[task][row])
        found.append(predictions)
    return found


def prediction_text(prediction: Mapping[str, Any], separator: str) -> str:
    """Return a prediction as the text of one cell: a value, a mask's path, or classes joined by the separator."""
    if "value" in prediction:
        return repr(prediction["value"]).removesuffix(".0")
    if "classes" in prediction:
        return separator.join(prediction["classes"]) or NO_CLASS
    return prediction["class"] if "class" in prediction else prediction["mask"]


class PredictionFiles:
    """A context manager that writes predictions to a CSV and a JSON file, complete on exit, and masks as PNG files."""

    def __init__(self, folder: Path, outputs: Mapping[str, TaskOutput], fit: Fit) -> None:
        self.folder, self.outputs, self.fit = folder, outputs, fit
        self.count = 0
        self._masks: set[str] = set()

    def __enter__(self) -> PredictionFiles:
        self._csv, self._json = self._open(CSV), self._open(JSON)
        columns = [
            column
            for task, output in self.outputs.items()
            for column in (task, f"{task}_probability")[: 1 + output.has_probability]
        ]
        self._rows = csv.writer(self._csv, lineterminator="\n")
        self._rows.writerow(map(escape_cell, ["image", *columns]))
        self._json.write("[")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._json.write("\n]\n")
            for file in (self._csv, self._json):
                file.close()
        except OSError as failed:
            raise disk_error(self.folder / JSON, 0, failed) from failed

    def add(self, file: ImageFile, shape: tuple[int, int], numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Write one image's predictions, and masks of the file's `shape` for dense tasks; return its JSON record.

        `numbers` are (K,), (1,) or (K, H, W) for each task.
        """
        predictions = {task: read_prediction(output, numbers[task]) for task, output in self.outputs.items()}
        row = [file.name]
        for task, output in self.outputs.items():
            prediction = predictions[task]
            if output.is_dense:
                prediction["mask"] = self._write_mask(task, output, file, shape, numbers[task])
            row.append(prediction_text(prediction, output.separator))
            if output.has_probability:
                row.append(prediction["probability"])
        record = {"image": file.name, "tasks": predictions}
        try:
            self._rows.writerow(map(escape_cell, row))
            self._json.write(("," if self.count else "") + "\n" + json.dumps(record, ensure_ascii=False))
        except OSError as error:
            raise disk_error(self.folder / JSON, 0, error) from error
        self.count += 1
        return record

    def _write_mask(
        self, task: str, output: TaskOutput, file: ImageFile, shape: tuple[int, int], numbers: np.ndarray
    ) -> str:
        """Write a PNG at the size of the image file; return its path in the run."""
        mask = restore_mask(read_mask(output, numbers), shape, self.fit, output.outside_value)
        picture = mask_picture(output, mask)
        path = self.folder / self._mask_name(task, file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        except OSError as error:
            raise disk_error(path, mask.size, error) from error
        return path.relative_to(self.folder).as_posix()

    def _mask_name(self, task: str, file: ImageFile) -> str:
        """Return `masks/TASK/PATH.png` of an image; a number is added if another suffix gave the same name."""
        parts = [part for part in PurePath(file.inner).with_suffix("").parts if part != ".."]
        parts = [part if len(part.encode()) <= MAX_PART else file_stem(part) for part in parts]
        stem = name = "/".join([MASKS, file_stem(task), *parts])
        number = 1
        while name in self._masks:
            number += 1
            name = f"{stem}-{number}"
        self._masks.add(name)
        return f"{name}.png"

    def _open(self, name: str) -> TextIO:
        try:
            return (self.folder / name).open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise disk_error(self.folder / name, 0, error) from error

"""What `predict` leaves behind: each head's numbers as an answer, and the files that they are streamed to."""
# K classes, H W pixels

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from PIL import Image

from vision_mtl.core.csv_escape import escape_cell
from vision_mtl.core.files import disk_error
from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.data.resize import Fit, restore_mask
from vision_mtl.data.targets import IGNORED, NO_CLASS
from vision_mtl.inference.image_files import ImageFile
from vision_mtl.viz.predictions import mask_palette

CSV, JSON, MASKS = "predictions.csv", "predictions.json", "masks"


@dataclass(frozen=True)
class TaskOutput:
    """What a task's numbers mean. `values` are the numbers that a mask holds, class by class, `outside` the rest."""

    kind: str
    class_names: list[str]
    separator: str
    values: np.ndarray
    outside: int

    @property
    def has_probability(self) -> bool:
        """Whether an answer says how sure it is; a number does not."""
        return label_kind(self.kind).has_classes

    @property
    def is_dense(self) -> bool:
        """Whether the answer is a mask."""
        return label_kind(self.kind).is_dense


def task_outputs(answers: Mapping[str, TaskHeadSpec], state: Mapping[str, Any]) -> dict[str, TaskOutput]:
    """The tasks of a checkpoint that says `state` of itself."""
    found = {}
    for task, answer in answers.items():
        names, options = state["class_names"][task], state["tasks"][task]
        values = _mask_values(names)
        free = (options["ignore"], IGNORED, *range(256))
        outside = next(value for value in free if value in range(256) and value not in values)
        found[task] = TaskOutput(answer.kind, names, options["separator"], values, outside)
    return found


def _mask_values(class_names: list[str]) -> np.ndarray:
    """(K,) uint8: a dense task's classes are named by the values in its masks, which new masks then hold again."""
    if all(name.isdecimal() and int(name) < 256 for name in class_names):
        return np.array([int(name) for name in class_names], np.uint8)
    return np.arange(min(len(class_names), 256), dtype=np.uint8)


def read_prediction(question: TaskOutput, numbers: np.ndarray) -> dict[str, Any]:
    """One image's (K,) or (K, H, W) probabilities, or (1,) number -> what `predictions.json` says."""
    return label_kind(question.kind).answer(numbers, question.class_names)


def read_mask(question: TaskOutput, numbers: np.ndarray) -> np.ndarray:
    """One image's (K, H, W) probabilities -> (H, W) uint8: the numbers that the task's masks hold."""
    return question.values[numbers.argmax(0)]


def read_predictions(questions: Mapping[str, TaskOutput], numbers: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every task's numbers of B images -> each image's answers by task; a dense one with its `mask` (H, W) uint8."""
    count = len(next(iter(numbers.values()))) if numbers else 0
    found = []
    for row in range(count):
        own = {task: read_prediction(question, numbers[task][row]) for task, question in questions.items()}
        for task, question in questions.items():
            if question.is_dense:
                own[task]["mask"] = read_mask(question, numbers[task][row])
        found.append(own)
    return found


def prediction_text(answer: Mapping[str, Any], separator: str) -> str:
    """The answer in one cell: a number, a mask's path, a class, or several with the separator, `none` for no class."""
    if "value" in answer:
        return f"{answer['value']:.6g}"
    if "classes" in answer:
        return separator.join(answer["classes"]) or NO_CLASS
    return answer["class"] if "class" in answer else answer["mask"]


class PredictionFiles:
    """A `with` block that appends every image's answers to a CSV and a JSON file, which are whole when it is left."""

    def __init__(self, folder: Path, questions: Mapping[str, TaskOutput], fit: Fit) -> None:
        self.folder, self.questions, self.fit = folder, questions, fit
        self.count = 0
        self._masks: set[str] = set()

    def __enter__(self) -> PredictionFiles:
        self._csv, self._json = self._open(CSV), self._open(JSON)
        columns = [
            column
            for task, question in self.questions.items()
            for column in (task, f"{task}_probability")[: 1 + question.has_probability]
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
        """Write one image's answers, (K,), (1,) or (K, H, W) a task, and a mask of `shape` for each dense one; its
        record."""
        answers = {task: read_prediction(question, numbers[task]) for task, question in self.questions.items()}
        for task, question in self.questions.items():
            if question.is_dense:
                answers[task]["mask"] = self._write_mask(task, question, file, shape, numbers[task])
        record = {"image": file.name, "tasks": answers}
        row = [file.name]
        for task, question in self.questions.items():
            sure = [answers[task]["probability"]] if question.has_probability else []
            row += [prediction_text(answers[task], question.separator), *sure]
        try:
            self._rows.writerow(map(escape_cell, row))
            self._json.write(("," if self.count else "") + "\n" + json.dumps(record, ensure_ascii=False))
        except OSError as error:
            raise disk_error(self.folder / JSON, 0, error) from error
        self.count += 1
        return record

    def _write_mask(
        self, task: str, question: TaskOutput, file: ImageFile, shape: tuple[int, int], numbers: np.ndarray
    ) -> str:
        """A palette PNG over the image as its file has it; its path in the run."""
        mask = restore_mask(read_mask(question, numbers), shape, self.fit, question.outside)
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette(mask_palette().tobytes())
        path = self.folder / self._mask_name(task, file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        except OSError as error:
            raise disk_error(path, mask.size, error) from error
        return path.relative_to(self.folder).as_posix()

    def _mask_name(self, task: str, file: ImageFile) -> str:
        """`masks/TASK/` and the image's own path without suffix; two images of one stem are told apart by a number."""
        parts = [part for part in PurePath(file.inner).with_suffix("").parts if part != ".."]
        stem = name = "/".join([MASKS, task, *parts])
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

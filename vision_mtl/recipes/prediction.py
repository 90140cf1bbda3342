"""Predict image files in batches: write each answer, keep what is printed and drawn."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.captions import caption, make_cell
from vision_mtl.inference.image_files import (
    Decoded,
    Frame,
    ImageFile,
    unreadable_text,
)
from vision_mtl.inference.prediction_files import CSV, JSON, MASKS, PredictionFiles, TaskOutput
from vision_mtl.inference.predictor import Predictor, require_heads
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.result_text import as_text
from vision_mtl.training.progress import ProgressLine
from vision_mtl.viz.predictions import Cell, predictions_figure

SHEET = "figures/predictions.png"
MAX_ROWS = 20  # images in the printed table


def open_heads(config: RunConfig) -> tuple[SharedModel, dict[str, Any]]:
    """The model of `init_from` and what it says of itself; raises `UserError` unless it has heads for tasks."""
    if not config.init_from:
        raise UserError("predict needs trained heads: give --init_from RUN, for example runs/finetune-...")
    model, state = restore_model(config.init_from)
    require_heads(model, config.init_from)
    return model, state


@dataclass
class Asked:
    """The images asked about, and what is kept of them in memory: counts, rows to print, pictures to draw."""

    run: Run
    questions: dict[str, TaskOutput]
    frame: Frame
    files: Sequence[ImageFile]
    num_pictures: int

    def __enter__(self) -> Asked:
        drawn = spread_evenly(torch.arange(len(self.files)), self.num_pictures).tolist()
        self.drawn = {self.files[i].name for i in drawn}
        self.unreadable: list[UnreadableImage] = []
        self.counts: dict[str, Counter[str]] = {
            task: Counter() for task, q in self.questions.items() if label_kind(q.kind).classifies_images
        }
        self.rows: list[dict[str, Any]] = []
        self.cells: list[Cell] = []
        self.started = time.perf_counter()
        self.line = ProgressLine(self.run.speaker if len(self.files) > MAX_ROWS else None)
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def answer(
        self, batch: Sequence[tuple[ImageFile, Decoded | UnreadableImage]], ask: Predictor, written: PredictionFiles
    ) -> None:
        """Predict a batch, write it, keep what is shown."""
        good = [(file, found) for file, found in batch if isinstance(found, Decoded)]
        self.unreadable += [found for _, found in batch if isinstance(found, UnreadableImage)]
        numbers = ask(np.stack([found.pixels for _, found in good])) if good else {}
        for row, (file, found) in enumerate(good):
            own = {task: values[row] for task, values in numbers.items()}
            record = written.add(file, found.shape, own)
            self._keep(file, found, record, own)
        done = written.count + len(self.unreadable)
        self.line.update(done / len(self.files), f"{done:,} of {len(self.files):,} images")

    def _keep(self, file: ImageFile, found: Decoded, record: dict[str, Any], numbers: Mapping[str, np.ndarray]) -> None:
        for task, counter in self.counts.items():
            answer = record["tasks"][task]
            counter.update([answer["class"]] if "class" in answer else answer["classes"])
        if len(self.rows) < MAX_ROWS:
            self.rows.append(record)
        if file.name in self.drawn:
            self.cells.append(make_cell(self.questions, found.pixels, record, numbers))

    def show(self) -> None:
        """Print the first answers and draw the contact sheet."""
        if self.rows:
            self.run.show(as_text(answer_table(self.questions, self.rows)))
        if self.cells:
            predictions_figure(self.cells).savefig(self.run.figures / Path(SHEET).name, dpi=150)

    def finish(self, skip_unreadable: bool, count: int) -> None:
        """Write the result. Raises `UserError` listing the unreadable images, unless they were to be left out."""
        if self.unreadable:
            listed = unreadable_text(self.unreadable)
            text = f"{len(self.unreadable)} of {len(self.files)} images cannot be read:\n{listed}"
            if not skip_unreadable or not count:
                kept = f" The answers for the other {count} are in {self.run.folder / CSV}." if count else ""
                raise UserError(f"{text}\nMend or remove them, or leave them out with --predict.skip_unreadable.{kept}")
            self.run.warn(text)
        answers = {task: dict(counter.most_common()) for task, counter in self.counts.items()}
        files = [CSV, JSON] + ([SHEET] if self.cells else [])
        files += [f"{MASKS}/{task}/" for task, question in self.questions.items() if label_kind(question.kind).is_dense]
        metrics = {"num_images": count, "num_unreadable": len(self.unreadable), "files": files, "answers": answers}
        self.run.write_result("completed", metrics=metrics, seconds=time.perf_counter() - self.started)


def answer_table(questions: Mapping[str, TaskOutput], records: Sequence[dict[str, Any]]) -> Table:
    """A row an image, a column a head."""
    table = Table("image", *questions, box=SIMPLE_HEAD, pad_edge=False)
    for record in records:
        answers = [caption("", q, record["tasks"][task]).removeprefix(": ") for task, q in questions.items()]
        table.add_row(*(Text(cell) for cell in (record["image"], *answers)))  # Text: brackets in a name are no markup
    return table

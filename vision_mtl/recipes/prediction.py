"""Predict image files in batches: write each prediction, and keep what is printed and drawn."""

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
from vision_mtl.core.text import file_stem, one_line
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.depth import ValueRange, is_deep, stacked
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.inference.captions import caption, make_cell
from vision_mtl.inference.image_files import Decoded, Frame, ImageFile, unreadable_text
from vision_mtl.inference.prediction_files import CSV, JSON, MASKS, PredictionFiles, TaskOutput
from vision_mtl.inference.prediction_summary import PredictionSummary
from vision_mtl.inference.predictor import Predictor, require_heads
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.result_text import as_text
from vision_mtl.training.progress import ProgressLine
from vision_mtl.viz.predictions import Cell, predictions_figure
from vision_mtl.viz.style import save_pictures

SHEET = "figures/predictions.png"
MAX_ROWS = 20  # images in the printed table
CLIPPED = 0.2  # share of an image's values outside the range, above which it is probably on another scale


def open_heads(config: RunConfig) -> tuple[SharedModel, dict[str, Any]]:
    """Return the model of `init_from` and its checkpoint's JSON part; raise `UserError` if it has no task heads."""
    if not config.init_from:
        raise UserError("predict needs trained heads: give --init_from RUN, for example runs/finetune-...")
    model, state = restore_model(config.init_from)
    require_heads(model, config.init_from)
    return model, state


@dataclass
class PredictionReport:
    """A `with` block that predicts batches of `files` and keeps counts, rows to print and pictures to draw."""

    run: Run
    outputs: dict[str, TaskOutput]
    files: Sequence[ImageFile]
    num_pictures: int
    frame: Frame

    def __enter__(self) -> PredictionReport:
        drawn = spread_evenly(torch.arange(len(self.files)), self.num_pictures).tolist()
        self.drawn = {self.files[i].name for i in drawn}
        self.unreadable: list[UnreadableImage] = []
        self.clipped: list[str] = []  # files on another scale than the range
        self.num_deep = 0
        self.counts: dict[str, Counter[str]] = {
            task: Counter() for task, output in self.outputs.items() if label_kind(output.kind).classifies_images
        }
        self.summaries = {task: PredictionSummary(output) for task, output in self.outputs.items()}
        self.rows: list[dict[str, Any]] = []
        self.cells: list[Cell] = []
        self.started = time.perf_counter()
        self.line = ProgressLine(self.run.speaker if len(self.files) > MAX_ROWS else None)
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def predict_batch(
        self,
        batch: Sequence[tuple[ImageFile, Decoded | UnreadableImage]],
        predictor: Predictor,
        output_files: PredictionFiles,
    ) -> None:
        """Predict a batch, append it to the files, keep what is shown."""
        readable = [(file, found) for file, found in batch if isinstance(found, Decoded)]
        self.unreadable += [found for _, found in batch if isinstance(found, UnreadableImage)]
        numbers = predictor(stacked([found.pixels for _, found in readable])) if readable else {}
        for row, (file, found) in enumerate(readable):
            own = {task: values[row] for task, values in numbers.items()}
            record = output_files.add(file, found.shape, own)
            self.num_deep += is_deep(found.pixels)
            self.clipped += [file.name] if found.clipped > CLIPPED else []
            self._keep(file, found, record, own)
        done = output_files.count + len(self.unreadable)
        self.line.update(done / len(self.files), f"{done:,} of {len(self.files):,} images")

    def _keep(self, file: ImageFile, found: Decoded, record: dict[str, Any], numbers: Mapping[str, np.ndarray]) -> None:
        for task, summary in self.summaries.items():
            summary.add(record["tasks"][task])
        for task, counter in self.counts.items():
            prediction = record["tasks"][task]
            counter.update([prediction["class"]] if "class" in prediction else prediction["classes"])
        if len(self.rows) < MAX_ROWS:
            self.rows.append(record)
        if file.name in self.drawn:
            self.cells.append(make_cell(self.outputs, found.pixels, record, numbers, self.frame.rgb_bands))

    def show(self) -> None:
        """Print the first predictions and draw the contact sheet."""
        if self.rows:
            self.run.show(as_text(prediction_table(self.outputs, self.rows)))
        if self.cells:
            save_pictures(predictions_figure(self.cells), self.run.figures, Path(SHEET).stem)

    def write_result(self, skip_unreadable: bool, num_images: int) -> None:
        """Write the result; raise `UserError` that lists the unreadable images, unless they are to be skipped."""
        if self.unreadable:
            listed = unreadable_text(self.unreadable)
            text = f"{len(self.unreadable)} of {len(self.files)} images cannot be read:\n{listed}"
            if not skip_unreadable or not num_images:
                where = self.run.folder / CSV
                kept = f" The predictions for the other {num_images} are in {where}." if num_images else ""
                raise UserError(f"{text}\nRepair or remove them, or skip them with --predict.skip_unreadable.{kept}")
            self.run.warn(text)
        files = [CSV, JSON] + ([SHEET] if self.cells else [])
        files += [
            f"{MASKS}/{file_stem(task)}/" for task, output in self.outputs.items() if label_kind(output.kind).is_dense
        ]
        self._report_scale(num_images)
        metrics = {
            "num_images": num_images,
            "num_unreadable": len(self.unreadable),
            "files": files,
            "summaries": {task: summary.to_json() for task, summary in self.summaries.items()},
            "answers": {task: dict(counter.most_common()) for task, counter in self.counts.items()},
        }
        self.run.write_result("completed", metrics=metrics, seconds=time.perf_counter() - self.started)

    def _report_scale(self, num_images: int) -> None:
        """Tell which range deep images were scaled by; warn about images that are probably on another scale."""
        value_range = self.frame.value_range
        if not isinstance(value_range, ValueRange):
            return
        if self.num_deep:
            self.run.say(f"values {value_range} became 0 to 1 ({value_range.origin})")
        if self.clipped:
            self.run.warn(
                f"{len(self.clipped)} of {num_images} images have more than {CLIPPED:.0%} of their values outside "
                f"{value_range}, for example {self.clipped[0]!r}: if they are on another scale, give it by "
                "--predict.value_range LOW HIGH."
            )
        if num_shallow := num_images - self.num_deep:
            self.run.warn(
                f"{num_shallow} of {num_images} images have 8 bits, and the run was trained on deeper ones "
                f"({value_range}): each kind keeps its own scale, 255 being 1 in 8 bits."
            )


def prediction_table(outputs: Mapping[str, TaskOutput], records: Sequence[dict[str, Any]]) -> Table:
    """Return a table with a row per image and a column per head."""
    table = Table("image", *outputs, box=SIMPLE_HEAD, pad_edge=False)
    for record in records:
        predicted = [caption(o, record["tasks"][task]) for task, o in outputs.items()]
        table.add_row(
            *(Text(one_line(cell)) for cell in (record["image"], *predicted))
        )  # Text: brackets in a name are no markup
    return table

"""Predictions of every task for images, the result of `run.predict`, shown as a contact sheet in notebooks."""
# B images, C channels, K classes, H W pixels

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vision_mtl.core.errors import unknown
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.inference.captions import caption, make_cell
from vision_mtl.inference.html import Markup, escape, figure_image, photograph, table
from vision_mtl.inference.prediction_files import TaskOutput, read_predictions
from vision_mtl.inference.predictor import Predictor
from vision_mtl.viz.predictions import predictions_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BATCH = 64  # images that go through the network at a time
SHOWN = 20  # images that a notebook shows


@dataclass(frozen=True)
class Predictions(Sequence[dict[str, Any]]):
    """Predictions by image. `predictions[0]["digits"]` has the entries of `predictions.json`:

    single_label `class`, `probability`, `probabilities` (by class name); multi_label `classes` (those above .5),
    `probability` (of the least certain class), `probabilities`; regression `value`, in units of the label; dense
    `shares` of the pixels by class name, `probability` (their mean), and `mask` (H, W) uint8 at the model's size.

    `numbers[task]` are (B, K) or (B, K, H, W) float32, or (B, 1) float64; `class_names[task]` are the names of K.
    """

    names: list[str]
    records: list[dict[str, dict[str, Any]]]
    numbers: dict[str, np.ndarray]
    outputs: dict[str, TaskOutput]
    images: Tensor
    rgb_bands: Sequence[int] | None = None  # shown as red, green and blue in the figure

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Each task's classes in the order of its numbers; [] for regression."""
        return {task: output.class_names for task, output in self.outputs.items()}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: Any) -> Any:
        return self.records[number]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def probabilities(self, task: str) -> pd.DataFrame:
        """Return a table of images by classes; raises `UserError` for an unknown task or one without image classes."""
        import pandas as pd  # late: it takes half a second to import

        classes = [name for name, output in self.outputs.items() if label_kind(output.kind).classifies_images]
        if task not in classes:
            raise unknown("task with classes", task, classes)
        return pd.DataFrame(self.numbers[task], index=self.names, columns=self.class_names[task])

    def figure(self) -> Figure:
        """Return the first twenty images with masks over them and the predictions below."""
        pixels = (self.images[:SHOWN] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        cells = []
        for row, shown in enumerate(pixels):
            record = {"image": self.names[row], "tasks": self.records[row]}
            numbers = {task: values[row] for task, values in self.numbers.items()}
            cells.append(make_cell(self.outputs, shown, record, numbers, self.rgb_bands))
        return predictions_figure(cells)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images, tasks {', '.join(self.outputs)})"

    def _repr_html_(self) -> str:
        more = f"<br/>the first {SHOWN} of {len(self)} images are shown" if len(self) > SHOWN else ""
        return Markup(photograph(figure_image(self.figure()), repr(self)) + self._table() + more)

    def _table(self) -> Markup:
        """Return the predictions as a table of text, for copying and for screen readers."""
        rows = []
        for name, record in list(zip(self.names, self.records, strict=True))[:SHOWN]:
            cells = [_cell(output, record[task]) for task, output in self.outputs.items()]
            rows.append((name, *cells))
        return Markup(f"<details><summary>as text</summary>{table(rows, ('image', *self.outputs))}</details>")


def _cell(output: TaskOutput, prediction: Mapping[str, Any]) -> Markup:
    if output.is_dense:
        return escape(", ".join(f"{name} {share:.0%}" for name, share in prediction["shares"].items()))
    return escape(caption(output, prediction))


def predict(
    predictor: Predictor,
    outputs: dict[str, TaskOutput],
    images: Tensor,
    names: list[str],
    bands: Sequence[int] | None = None,
) -> Predictions:
    """Return the predictions of every task for images (B, C, H, W) in [0, 1]; figures show the `bands` as colours."""
    batches = [predictor.predict(batch) for batch in images.split(BATCH)]
    numbers = {task: np.concatenate([batch[task] for batch in batches]) for task in outputs}
    return Predictions(names, read_predictions(outputs, numbers), numbers, outputs, images, bands)

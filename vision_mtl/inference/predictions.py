"""What `run.predict` gives back: every head's answer for every image, and themselves as a contact sheet."""
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
    """Answers by image. `predictions[0]["digits"]` has what `predictions.json` has:

    single_label `class`, `probability`, `probabilities` (by class name); multi_label `classes` (those above .5),
    `probability` (of the least sure yes or no), `probabilities`; regression `value`, in units of the label; dense
    `shares` of the pixels by class name, `probability` (their mean), and `mask` (H, W) uint8 at the model's size.

    `numbers[task]` are all images' (B, K), (B, 1) or (B, K, H, W) float32; `class_names[task]` what K stands for.
    """

    names: list[str]
    answers: list[dict[str, Any]]
    numbers: dict[str, np.ndarray]
    questions: dict[str, TaskOutput]
    images: Tensor

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Each task's classes in the order of its numbers; [] for numbers."""
        return {task: question.class_names for task, question in self.questions.items()}

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, number: Any) -> Any:
        return self.answers[number]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.answers)

    def probabilities(self, task: str) -> pd.DataFrame:
        """A row an image, a column a class; raises `UserError` for a task that is not there or is not classes."""
        import pandas as pd  # late: half a second that only a table is worth

        classes = [name for name, q in self.questions.items() if label_kind(q.kind).classifies_images]
        if task not in classes:
            raise unknown("task with classes", task, classes)
        return pd.DataFrame(self.numbers[task], index=self.names, columns=self.class_names[task])

    def figure(self) -> Figure:
        """The first twenty images, masks laid over them, and what each head says of them."""
        pixels = (self.images[:SHOWN] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        cells = []
        for row, shown in enumerate(pixels):
            record = {"image": self.names[row], "tasks": self.answers[row]}
            own = {task: values[row] for task, values in self.numbers.items()}
            cells.append(make_cell(self.questions, shown, record, own))
        return predictions_figure(cells)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images, tasks {', '.join(self.questions)})"

    def _repr_html_(self) -> str:
        more = f"<br/>the first {SHOWN} of {len(self)} images are shown" if len(self) > SHOWN else ""
        return Markup(photograph(figure_image(self.figure()), repr(self)) + self._table() + more)

    def _table(self) -> Markup:
        """A row an image, a column a task: the answers as text, for copying and for readers of the page aloud."""
        rows = []
        for name, answer in list(zip(self.names, self.answers, strict=True))[:SHOWN]:
            cells = [_cell(question, answer[task]) for task, question in self.questions.items()]
            rows.append((name, *cells))
        return Markup(f"<details><summary>as text</summary>{table(rows, ('image', *self.questions))}</details>")


def _cell(question: TaskOutput, answer: Mapping[str, Any]) -> Markup:
    if question.is_dense:
        return escape(", ".join(f"{name} {share:.0%}" for name, share in answer["shares"].items()))
    return escape(caption("", question, answer).removeprefix(": "))


def predict(ask: Predictor, questions: dict[str, TaskOutput], images: Tensor, names: list[str]) -> Predictions:
    """Ask every head about images (B, C, H, W) in [0, 1]."""
    found = [ask.answer(batch) for batch in images.split(BATCH)]
    numbers = {task: np.concatenate([one[task] for one in found]) for task in questions}
    return Predictions(names, read_predictions(questions, numbers), numbers, questions, images)

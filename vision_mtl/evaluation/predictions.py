"""A shared model's predictions for its tasks and their scores, the same for every stage that scores tasks."""
# n images, K classes or labels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import LabelKind, label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.evaluation.features import Report, reported, spread_evenly
from vision_mtl.evaluation.scores import Score, score_measures
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class TaskPredictions:
    """One task's predictions for the pool's images `indices` (n,), which have labels of the task.

    `outputs` are (n, K) float32 logits; for a task of numbers (n, 1) float64 in the labels' unit; for a dense task
    (n, K, K) int64 pixel counts, rows true and columns predicted, since logits would need too much memory.
    """

    target: Target
    indices: Tensor
    outputs: Tensor

    @property
    def kind(self) -> LabelKind:
        """The kind of the task's labels."""
        return label_kind(self.target.kind)

    @property
    def values(self) -> np.ndarray:
        """The labels: the target's values at `indices`."""
        return self.target.values[self.indices.numpy()]

    def probabilities(self, model: SharedModel, task: str) -> Tensor:
        """(n, K) calibrated probabilities, (n, 1) numbers, or a dense task's pixel counts.

        Probabilities are float64: in float32 a high temperature can make close logits equal and change the decision.
        """
        with torch.no_grad():
            return model.probabilities(task, self.outputs.double()) if self.kind.classifies_images else self.outputs

    def numbers(self) -> np.ndarray:
        """As `probabilities`, without calibration, which changes no decision."""
        return (self.kind.probabilities(self.outputs.double()) if self.kind.classifies_images else self.outputs).numpy()

    def decisions(self) -> np.ndarray:
        """The predictions in the form of the target's values; not available for a dense task."""
        return self.kind.decide(self.numbers())


def predict_task(
    model: SharedModel,
    pool: Pool,
    task: str,
    indices: Tensor,
    autocast: Autocast = nullcontext,
    batch_size: int = 256,
    report: Report = lambda share: None,
) -> TaskPredictions:
    """Return the head's predictions for the pool's images `indices` (n,), in evaluation mode.

    `report` receives the share of the images done.
    """
    target, device = pool.targets[task], next(model.parameters()).device
    kind = label_kind(target.kind)
    training = model.training
    model.eval()
    found = []
    for batch in reported(indices.split(batch_size), report):
        images = pool.gather(batch).to(device)
        with torch.no_grad(), autocast():
            request = Request(task, torch.arange(len(batch), device=device), is_task=True)
            outputs = model(images, [request])[request.key][0].float()
            outputs = (outputs if kind.has_classes else model.probabilities(task, outputs)).cpu()
        found.append(kind.outputs_to_score(outputs, target.gather(batch)))
    model.train(training)
    return TaskPredictions(target, indices, torch.cat(found))


def predict_split(
    model: SharedModel,
    pool: Pool,
    split: str,
    tasks: Sequence[str],
    autocast: Autocast = nullcontext,
    most_images: int = 0,
    show: Callable[[float, str], None] = lambda share, text: None,
) -> dict[str, TaskPredictions]:
    """Return every task's predictions for its labelled images of `split`; tasks without any are absent.

    With `most_images`, they are for at most so many images of each task, evenly spread. `show` receives the share done
    and the task's name.
    """
    rows = {task: pool.indices(split, task=task) for task in tasks}
    if most_images:
        rows = {task: spread_evenly(indices, most_images) for task, indices in rows.items()}
    rows = {task: indices for task, indices in rows.items() if len(indices)}
    total, done, found = sum(map(len, rows.values())), 0, {}
    for task, indices in rows.items():
        first, own = done / total, len(indices) / total
        report = partial(_show_part, show, first, own, task)
        found[task] = predict_task(model, pool, task, indices, autocast, report=report)
        done += len(indices)
    return found


def _show_part(show: Callable[[float, str], None], first: float, own: float, task: str, share: float) -> None:
    """Show a task's share done as a share of all tasks, of which it is `own` and begins at `first`."""
    show(first + own * share, task)


def task_scores(predictions: TaskPredictions, probabilities: Tensor, clusters: np.ndarray) -> dict[str, Score]:
    """Every metric of the task's kind, with its interval over `clusters` (n,)."""
    return score_measures(predictions.kind.measures(probabilities.numpy(), predictions.values), clusters)


def instance_values(predictions: TaskPredictions) -> np.ndarray:
    """(n,) float64 score of each prediction, for paired comparisons; higher is better, and the mean is the score."""
    return predictions.kind.image_values(predictions.numbers(), predictions.values)


def goodness(predictions: TaskPredictions) -> float:
    """The number that weights are selected by, comparable between tasks: 1 is perfect, about 0 is useless."""
    return predictions.kind.goodness(instance_values(predictions), predictions.values)

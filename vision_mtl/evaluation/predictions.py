"""What a shared model says of its tasks, and how right it is: the same for every stage that scores tasks."""
# n images, K classes or labels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import LabelKind, label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.evaluation.scores import Score, score_measures
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class TaskPredictions:
    """One task's answers for the images `indices` (n,) of the pool that carry its label.

    `outputs` are the head's: (n, K) or (n, 1) float32; of a dense task (n, K, K) int64 pixel counts, rows true and
    columns predicted, since its logits would fill the memory.
    """

    target: Target
    indices: Tensor
    outputs: Tensor

    @property
    def kind(self) -> LabelKind:
        """Of the task's labels."""
        return label_kind(self.target.kind)

    @property
    def values(self) -> np.ndarray:
        """The images' rows of the target's values."""
        return self.target.values[self.indices.numpy()]

    def probabilities(self, model: SharedModel, task: str) -> Tensor:
        """(n, K) calibrated probabilities, (n, 1) numbers, or a dense task's pixel counts.

        Probabilities are float64: in float32 a high temperature makes near logits equal, and the winner another.
        """
        with torch.no_grad():
            return self.outputs if self.kind.is_dense else model.task_head(task).probabilities(self.outputs.double())

    def numbers(self) -> np.ndarray:
        """The same without calibration, which changes no decision."""
        return (self.outputs if self.kind.is_dense else self.kind.probabilities(self.outputs.double())).numpy()

    def decisions(self) -> np.ndarray:
        """What is predicted, in the form of the target's values; not of a dense task."""
        return self.kind.decide(self.numbers())


def predict_task(
    model: SharedModel, pool: Pool, task: str, indices: Tensor, autocast: Autocast = nullcontext, batch_size: int = 256
) -> TaskPredictions:
    """The head's answers for the pool's images `indices` (n,), in evaluation mode."""
    target, device = pool.targets[task], next(model.parameters()).device
    kind = label_kind(target.kind)
    training = model.training
    model.eval()
    found = []
    for batch in indices.split(batch_size):
        images = pool.gather(batch).to(device)
        with torch.no_grad(), autocast():
            request = Request(task, torch.arange(len(batch), device=device), is_task=True)
            outputs = model(images, [request])[request.key][0].float().cpu()
        found.append(kind.outputs_to_score(outputs, target.gather(batch)))
    model.train(training)
    return TaskPredictions(target, indices, torch.cat(found))


def predict_split(
    model: SharedModel, pool: Pool, split: str, tasks: Sequence[str], autocast: Autocast = nullcontext
) -> dict[str, TaskPredictions]:
    """Every task's answers for its labelled images of `split`; tasks without any are absent."""
    rows = {task: pool.indices(split, task=task) for task in tasks}
    return {task: predict_task(model, pool, task, indices, autocast) for task, indices in rows.items() if len(indices)}


def task_scores(found: TaskPredictions, probabilities: Tensor, clusters: np.ndarray) -> dict[str, Score]:
    """Every metric of the task's kind, with its interval over `clusters` (n,)."""
    return score_measures(found.kind.measures(probabilities.numpy(), found.values), clusters)


def instance_values(found: TaskPredictions) -> np.ndarray:
    """(n,) float64: how good each prediction is, for paired comparisons; higher is better, the mean is the score."""
    return found.kind.image_values(found.numbers(), found.values)


def goodness(found: TaskPredictions) -> float:
    """One number to choose by, higher is better and comparable between tasks: about 0 useless, 1 perfect."""
    return found.kind.goodness(instance_values(found), found.values)

"""What a shared model says of its tasks, and how right it is: the same for every stage that scores tasks."""
# n images, K classes or labels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.evaluation.metrics import (
    classification_metrics,
    dense_metrics,
    multi_label_metrics,
    regression_metrics,
)
from vision_mtl.evaluation.scores import Score
from vision_mtl.models.request import Request
from vision_mtl.models.shared import SharedModel

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class TaskPredictions:
    """One task's answers for the images `indices` (n,) of the pool that carry its label.

    `outputs` are the head's: (n, K) or (n, 1) float32; of a dense task (n, K, K) int64 pixel counts, rows true and
    columns said, since its logits would fill the memory.
    """

    target: Target
    indices: Tensor
    outputs: Tensor

    def probabilities(self, model: SharedModel, task: str) -> Tensor:
        """(n, K) calibrated probabilities, or (n, 1) numbers.

        Probabilities are float64: in float32 a high temperature makes near logits equal, and the winner another.
        """
        with torch.no_grad():
            return model.task_head(task).probabilities(self.outputs.double())


def predict_task(
    model: SharedModel, pool: Pool, task: str, indices: Tensor, autocast: Autocast = nullcontext, batch_size: int = 256
) -> TaskPredictions:
    """The head's answers for the pool's images `indices` (n,), in evaluation mode."""
    target, device = pool.targets[task], next(model.parameters()).device
    training = model.training
    model.eval()
    found = []
    for batch in indices.split(batch_size):
        images = pool.gather(batch).to(device)
        with torch.no_grad(), autocast():
            request = Request(task, torch.arange(len(batch), device=device), is_task=True)
            outputs = model(images, [request])[request.key][0].float().cpu()
        found.append(_confusions(outputs, target.gather(batch)) if target.kind == "dense" else outputs)
    model.train(training)
    return TaskPredictions(target, indices, torch.cat(found))


def predict_split(
    model: SharedModel, pool: Pool, split: str, tasks: Sequence[str], autocast: Autocast = nullcontext
) -> dict[str, TaskPredictions]:
    """Every task's answers for its labelled images of `split`; tasks without any are absent."""
    rows = {task: pool.indices(split, task=task) for task in tasks}
    return {task: predict_task(model, pool, task, indices, autocast) for task, indices in rows.items() if len(indices)}


def task_scores(found: TaskPredictions, probabilities: Tensor, clusters: np.ndarray) -> dict[str, Score]:
    """Every metric that suits the task's kind, with its interval over `clusters` (n,)."""
    if found.target.kind == "dense":
        return dense_metrics(found.outputs.numpy(), clusters)
    true = found.target.gather(found.indices).numpy()
    if found.target.kind == "regression":
        return regression_metrics(probabilities[:, 0].numpy(), true, clusters)
    measure = classification_metrics if found.target.kind == "single_label" else multi_label_metrics
    return measure(probabilities.numpy(), true, clusters)


def instance_values(found: TaskPredictions) -> np.ndarray:
    """(n,) float64: how good each answer is, for paired comparisons; higher is better, the mean is the score.

    1 or 0 for a class; the share of right labels; minus the absolute error; the share of right pixels.
    """
    if found.target.kind == "dense":
        counts = found.outputs.double()
        return (counts.diagonal(dim1=1, dim2=2).sum(1) / counts.sum((1, 2)).clamp(min=1)).numpy()
    true = found.target.gather(found.indices)
    if found.target.kind == "regression":
        return -(found.outputs[:, 0] - true).abs().double().numpy()
    if found.target.kind == "multi_label":
        return ((found.outputs > 0) == (true > 0)).double().mean(1).numpy()
    return (found.outputs.argmax(1) == true).double().numpy()


def goodness(found: TaskPredictions) -> float:
    """One number to choose by, higher is better and comparable between tasks: about 0 useless, 1 perfect.

    The mean of `instance_values`; of a regression the share of the labels' mean absolute deviation that is explained.
    """
    value = float(instance_values(found).mean())
    if found.target.kind != "regression":
        return value
    true = found.target.gather(found.indices).double()
    spread = float((true - true.median()).abs().mean())
    return 1 + value / spread if spread else value


def _confusions(logits: Tensor, true: Tensor) -> Tensor:
    """(B, K, H, W) and (B, H, W), -1 = no class -> (B, K, K) int64 pixel counts."""
    size, said = logits.shape[1], logits.argmax(1)
    cells = (true * size + said).masked_fill(true < 0, size * size).flatten(1)  # (B, H * W)
    counts = torch.zeros(len(cells), size * size + 1, dtype=torch.int64)
    counts.scatter_add_(1, cells, torch.ones_like(cells))
    return counts[:, :-1].view(-1, size, size)

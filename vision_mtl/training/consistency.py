"""Consistency: a confident prediction on a weak view of an unlabelled image is the label of its strong view.

FixMatch: Sohn et al., 2020, https://arxiv.org/abs/2001.07685, eq. 4 and algorithm 1. Weak and strong views share the
pass with the labelled images, as in the authors' code, so BatchNorm normalises them together. No view predicts pixels
that it hides, so none needs a separate pass (`models/passes.py`).
Differs from the paper: several tasks, and several independent classes (`LabelKind.pseudo_labels`).
"""
# B unlabelled images of a micro-batch, each with two views; b of them serve one task

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.pool import Pool
from vision_mtl.models.passes import Shown
from vision_mtl.models.request import Request
from vision_mtl.training.objective import Predictions, Prepared, StepLoss, add_up
from vision_mtl.training.supervised import TaskLoss, mean_counts

CONSISTENCY = "consistency"  # the name of this objective's loss


@dataclass(frozen=True)
class ConsistencyBatch:
    """A micro-batch: weak and strong views (B, C, H, W) of the images `index` (B,), which are on the CPU.

    `rows` maps a task to the images (b,) that serve it, `counts` to their number in the step.
    """

    weak: Tensor
    strong: Tensor
    index: Tensor
    rows: dict[str, Tensor]
    counts: dict[str, float]


class ConsistencyObjective:
    """The loss of the strong views against confident predictions on the weak views, added over tasks.

    A task's part is the mean over the unlabelled images of the step that serve it, confident or not, times the task's
    weight in `weights` and the objective's `weight`.
    """

    names: Sequence[str] = (CONSISTENCY,)

    def __init__(
        self, losses: Mapping[str, TaskLoss], weights: Mapping[str, float], threshold: float, weight: float
    ) -> None:
        self.losses, self.weights, self.threshold, self.weight = dict(losses), dict(weights), threshold, weight

    @property
    def shown(self) -> Sequence[str]:
        """The names of the tasks."""
        return list(self.losses)

    def prepare(self, batch: ConsistencyBatch, share: float = 1.0) -> Prepared:
        """Return the weak views, then the strong ones; a task's head predicts from both of its images."""
        images = torch.cat((batch.weak, batch.strong))
        requests = [
            Request(name, torch.cat((rows, rows + len(batch.weak))), is_task=True, part=CONSISTENCY)
            for name, rows in batch.rows.items()
        ]
        shown = Shown.of(torch.cat((batch.index, batch.index)), guarded=False)
        return Prepared(images, requests, images.new_ones(len(images)), share, (batch, requests), shown)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float = 0.0) -> StepLoss:
        """Return the loss; shown is each task's mean over its images."""
        batch, requests = prepared.data
        total, shown = [prepared.images.new_zeros(())], {}
        for request in requests:
            name, count = request.name, len(batch.rows[request.name])
            weak, strong = predictions[request.key][0].split(count)
            values = self.losses[name].of_pseudo_labels(strong, weak.detach(), self.threshold)
            total.append(self.weights[name] * values.sum() / batch.counts[name])
            shown[name] = (values.detach().sum(), values.new_tensor(float(count)))
        return StepLoss({CONSISTENCY: self.weight * add_up(total)}, shown, len(prepared.images))


@dataclass(frozen=True)
class ConsistencyFeed:
    """Two views of unlabelled images on `device`: `weak` and `strong` load the same images.

    `unlabelled` maps a task to the mask (N,) over the pool of the images that serve it. An image serves all tasks that
    it is unlabelled for, not only the one that it was drawn for.
    """

    weak: TaskLoader
    strong: TaskLoader
    unlabelled: Mapping[str, np.ndarray]
    device: torch.device

    def at(self, step: int, num_micro_batches: int) -> list[tuple[ConsistencyBatch, float]]:
        """Return the step's images in micro-batches, with their shares; the counts are those of the step."""
        weak, strong = self.weak.at(step), self.strong.at(step)
        index = weak.indices
        serves = {name: torch.from_numpy(mask[index.numpy()]) for name, mask in self.unlabelled.items()}
        counts = mean_counts({name: float(own.sum()) for name, own in serves.items()}, self.device)
        found = []
        for part in torch.arange(len(index)).tensor_split(min(num_micro_batches, len(index))):
            rows = {name: own[part].nonzero()[:, 0] for name, own in serves.items() if own[part].any()}
            first, second = (
                images[part[0] : part[-1] + 1].to(self.device, non_blocking=True)
                for images in (weak.images, strong.images)
            )
            rows = {name: own.to(self.device, non_blocking=True) for name, own in rows.items()}
            found.append((ConsistencyBatch(first, second, index[part], rows, counts), len(part) / len(index)))
        return found

    def smallest_part(self, num_micro_batches: int) -> int:
        """Return the number of views in the smallest micro-batch of this process; 0: there are fewer than parts."""
        return 2 * (self.weak.batches.batch_size // num_micro_batches)

    @property
    def pool(self) -> Pool:
        """The pool: all images, labelled or not."""
        return self.weak.pool

    @property
    def images_per_step(self) -> int:
        """The number of images of a step, each with two views, over all processes."""
        return self.weak.batches.batch_size * self.weak.batches.world_size

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the step's `indices` (B,) in the pool and its views `images` and `strong` (B, C, H, W)."""
        weak, strong = self.weak.at(step), self.strong.at(step)
        return {"indices": weak.indices, "images": weak.images, "strong": strong.images}

    def close(self) -> None:
        """Stop the loaders' threads."""
        self.weak.close()
        self.strong.close()


def agreement(kind: str, outputs: Tensor, labels: Tensor, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, K) bool: which decisions are confident, and which of those equal the labels as of `Target.gather`.

    K is 1 for a kind with one class.
    """
    found, confident = label_kind(kind).pseudo_labels(outputs, threshold)
    right = confident & (found == labels)
    return confident.view(len(outputs), -1).numpy(), right.view(len(outputs), -1).numpy()

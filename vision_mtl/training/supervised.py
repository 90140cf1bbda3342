"""The supervised objective: the loss of each task over the images that have its label.

An image with labels for two tasks counts in both. A task's head gets only the images with the task's label. A task's
loss is the mean over the labelled images of the whole step, over all micro-batches and processes, so it depends neither
on accumulation nor on the number of processes.
"""
# B images in a micro-batch, b rows labelled for one task, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.data.loader import LabelledBatch, TaskLoader
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.models.passes import Shown
from vision_mtl.models.request import Request
from vision_mtl.training.mixing import Labels, Mixing
from vision_mtl.training.objective import Predictions, Prepared, StepLoss


@dataclass(frozen=True)
class TaskLoss:
    """The loss of one task; `class_weights` (K,) have mean 1 over the training labels."""

    kind: str
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Return the loss of each image, (b,) float32, from the head's outputs and labels as of `Target.gather`."""
        return label_kind(self.kind).loss(outputs.float(), values, **self._options(outputs))

    def of_pseudo_labels(self, outputs: Tensor, others: Tensor, threshold: float) -> Tensor:
        """Return the loss (b,) against the confident decisions of `others`, the head's outputs on other views."""
        kind = label_kind(self.kind)
        labels, confident = kind.pseudo_labels(others.float(), threshold)
        return kind.pseudo_loss(outputs.float(), labels, confident, **self._options(outputs))

    def _options(self, outputs: Tensor) -> dict[str, Any]:
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        return {"weights": weights, "smoothing": self.label_smoothing}


@dataclass(frozen=True)
class TaskBatch:
    """A micro-batch: images (B, C, H, W), each task's labels, and each task's number of labelled images in the step.

    `index` (B,) int64, or (B, 2) for mixed images, are their numbers in the pool, on the CPU.
    """

    images: Tensor
    index: Tensor
    labels: dict[str, Labels]
    counts: dict[str, float]


class TaskObjective:
    """The losses of several tasks over one batch; a task without a labelled image is absent."""

    def __init__(self, losses: Mapping[str, TaskLoss]) -> None:
        self.losses = dict(losses)
        self.names: Sequence[str] = list(losses)

    @property
    def shown(self) -> Sequence[str]:
        """The names of the tasks."""
        return self.names

    def prepare(self, batch: TaskBatch, share: float = 1.0) -> Prepared:
        """Return the undamaged images; each head predicts from the rows with its label."""
        requests = [Request(name, labels.rows, is_task=True) for name, labels in batch.labels.items()]
        keep_all = batch.images.new_ones(len(batch.images))  # the decoder drops nothing: labels are of full images
        return Prepared(batch.images, requests, keep_all, share, batch, Shown.of(batch.index, guarded=False))

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float = 0.0) -> StepLoss:
        """Return each task's loss, summed over its labelled images and divided by their number in the step."""
        batch: TaskBatch = prepared.data
        losses, shown = {}, {}
        for name, labels in batch.labels.items():
            values = self._values(name, predictions[f"task:{name}"][0], labels)
            losses[name] = values.sum() / batch.counts[name]
            shown[name] = (values.detach().sum(), values.new_tensor(float(len(values))))
        return StepLoss(losses, shown, len(batch.images))

    def _values(self, name: str, outputs: Tensor, labels: Labels) -> Tensor:
        """Return the loss of each image, (b,); for a mixed image, the losses of both labels by their shares."""
        loss = self.losses[name](outputs, labels.values)
        if labels.others is None or labels.share is None:
            return loss
        return labels.share * loss + (1 - labels.share) * self.losses[name](outputs, labels.others)


@dataclass(frozen=True)
class TaskFeed:
    """Augmented, labelled batches on `device`, with mixup and CutMix if `mixing` is given."""

    loader: TaskLoader
    device: torch.device
    mixing: Mixing | None = None

    def at(self, step: int, num_micro_batches: int) -> list[tuple[TaskBatch, float]]:
        """Return the step's images in micro-batches, with their shares; the counts are those of the step."""
        loaded = self.loader.at(step)
        images = loaded.images.to(self.device, non_blocking=True)
        labels = {name: Labels(rows, values).to(self.device) for name, (rows, values) in loaded.targets.items()}
        index = loaded.indices
        if self.mixing is not None:
            index = self.mixing.mixed(loaded, self.loader.seed)
            images, labels = self.mixing(images, labels, loaded, self.loader.seed)
        counts = self._counts(labels)
        found, start = [], 0
        for some in images.tensor_split(min(num_micro_batches, len(images))):
            own = _within(labels, start, start + len(some))
            found.append((TaskBatch(some, index[start : start + len(some)], own, counts), len(some) / len(images)))
            start += len(some)
        return found

    def smallest_part(self, num_micro_batches: int) -> int:
        """Return the number of images in the smallest micro-batch of this process; 0: there are fewer than parts."""
        return self.loader.batches.batch_size // num_micro_batches

    @property
    def pool(self) -> Pool:
        """The pool: all images, labelled or not."""
        return self.loader.pool

    @property
    def images_per_step(self) -> int:
        """The number of images of a step, over all processes."""
        return self.loader.batches.batch_size * self.loader.batches.world_size

    def share(self, task: str) -> float:
        """Return the share of the drawn images that have a label of `task`, including those drawn for other tasks."""
        batches, labelled = self.loader.batches, self.loader.pool.targets[task].labelled
        shares = [float(labelled[indices.numpy()].mean()) for indices in batches.indices.values()]
        return sum(n * share for n, share in zip(batches.counts, shares, strict=True)) / len(batches.cycle)

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the step's `indices` (B,) in the pool and its augmented `images` (B, C, H, W)."""
        batch: LabelledBatch = self.loader.at(step)
        return {"indices": batch.indices, "images": batch.images}

    def close(self) -> None:
        """Stop the loader's threads."""
        self.loader.close()

    def _counts(self, labels: Mapping[str, Labels]) -> dict[str, float]:
        """Return each task's labelled images in the step, as a mean over processes."""
        own = {name: float(len(labels[name].rows)) if name in labels else 0.0 for name in self.loader.tasks}
        return mean_counts(own, self.device)


def mean_counts(own: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return this process's counts as means over processes, because gradients are averaged. All must call it."""
    if not torch.distributed.is_initialized():
        return dict(own)
    counts = torch.tensor(list(own.values()), device=device)
    torch.distributed.all_reduce(counts)
    counts /= torch.distributed.get_world_size()
    return dict(zip(own, counts.tolist(), strict=True))


def _within(labels: Mapping[str, Labels], start: int, stop: int) -> dict[str, Labels]:
    """Return the labels of rows `start` to `stop`, with rows counted from `start`; tasks without one are absent."""
    found = {name: own.between(start, stop) for name, own in labels.items()}
    return {name: own for name, own in found.items() if len(own.rows)}


def task_losses(tasks: Mapping[str, Task], targets: Mapping[str, Target], train: np.ndarray) -> dict[str, TaskLoss]:
    """Return each task's loss, with class weights from the training images `train` (N,) bool."""
    return {
        name: TaskLoss(
            targets[name].kind,
            task.label_smoothing,
            balanced_weights(targets[name], train) if task.class_weights == "balanced" else None,
        )
        for name, task in tasks.items()
    }


def task_head_specs(targets: Mapping[str, Target]) -> dict[str, TaskHeadSpec]:
    """Return the spec of each task's head, in the unit of the task's labels."""
    return {name: TaskHeadSpec(target.kind, target.num_outputs, *target.unit) for name, target in targets.items()}


def balanced_weights(target: Target, train: np.ndarray) -> Tensor | None:
    """Return class weights (K,) float32, inversely proportional to frequency, with mean 1 over the training labels.

    `train` (N,) bool are the training images. Dense kinds count pixels. None for a kind without classes.
    """
    kind, values = label_kind(target.kind), target.values[target.labelled & train]
    if not kind.has_classes:
        return None
    _, classes, times = kind.occurrences(values, target.masks)
    counts = np.bincount(classes, weights=times, minlength=len(target.class_names))
    weights = counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1)
    return torch.tensor(weights, dtype=torch.float32)

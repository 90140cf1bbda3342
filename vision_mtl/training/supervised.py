"""The supervised objective: every task's loss on the images that carry its label, whatever else they carry.

An image labelled for two tasks counts in both; one without a label for a task is never seen by that task's head. A
task's loss is its mean over the labelled images of the whole step, over all micro-batches and processes: neither
accumulation nor the number of processes changes it.
"""
# B images in a micro-batch, b rows labelled for one task, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.data.loader import LabelledBatch, TaskLoader
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target
from vision_mtl.models.request import Request
from vision_mtl.training.mixing import Labels, Mixing
from vision_mtl.training.objective import Predictions, Prepared, StepLoss


@dataclass(frozen=True)
class TaskLoss:
    """One task's loss. `class_weights` (K,) have mean 1 over the training labels; `scale` is a regression's unit."""

    kind: str
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    scale: float = 1.0

    def __call__(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Head's outputs and labels as `Target.gather` gives them -> (b,) float32, one value an image."""
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        return label_kind(self.kind).loss(
            outputs.float(), values, weights=weights, smoothing=self.label_smoothing, scale=self.scale
        )


@dataclass(frozen=True)
class TaskBatch:
    """Images (B, C, H, W) of a micro-batch; by task, the labels of those that carry one, and the step's number of
    them."""

    images: Tensor
    labels: dict[str, Labels]
    counts: dict[str, float]


class TaskObjective:
    """The losses of several tasks over one batch; a task that no image is labelled for is absent."""

    def __init__(self, losses: Mapping[str, TaskLoss]) -> None:
        self.losses = dict(losses)
        self.names: Sequence[str] = list(losses)

    @property
    def shown(self) -> Sequence[str]:
        """The tasks."""
        return self.names

    def prepare(self, batch: TaskBatch, share: float = 1.0) -> Prepared:
        """Take the images as they are; each head predicts from the rows that carry its label."""
        requests = [Request(name, labels.rows, is_task=True) for name, labels in batch.labels.items()]
        keep_all = batch.images.new_ones(len(batch.images))  # the decoder drops nothing: labels are for whole images
        return Prepared(batch.images, requests, keep_all, share, batch)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float = 0.0) -> StepLoss:
        """Each task's sum over its labelled images, divided by the step's number of them."""
        batch: TaskBatch = prepared.data
        losses, shown = {}, {}
        for name, labels in batch.labels.items():
            values = self._values(name, predictions[f"task:{name}"][0], labels)
            losses[name] = values.sum() / batch.counts[name]
            shown[name] = (values.detach().sum(), values.new_tensor(float(len(values))))
        return StepLoss(losses, shown, len(batch.images))

    def _values(self, name: str, outputs: Tensor, labels: Labels) -> Tensor:
        """(b,): the loss of each image; of a mixed one, both labels' losses in proportion."""
        loss = self.losses[name](outputs, labels.values)
        if labels.others is None:
            return loss
        return labels.share * loss + (1 - labels.share) * self.losses[name](outputs, labels.others)


@dataclass(frozen=True)
class TaskFeed:
    """Augmented, labelled batches on `device`, mixed as `mixing` says."""

    loader: TaskLoader
    device: torch.device
    mixing: Mixing | None = None

    def at(self, step: int, num_micro_batches: int) -> list[tuple[TaskBatch, float]]:
        """Return the step's images in micro-batches, with their shares; counts are taken over all of them."""
        loaded = self.loader.at(step)
        images = loaded.images.to(self.device, non_blocking=True)
        labels = {name: Labels(rows, values).to(self.device) for name, (rows, values) in loaded.targets.items()}
        if self.mixing is not None:
            images, labels = self.mixing(images, labels, loaded, self.loader.seed)
        counts = self._counts(labels)
        found, start = [], 0
        for some in images.tensor_split(min(num_micro_batches, len(images))):
            own = _within(labels, start, start + len(some))
            found.append((TaskBatch(some, own, counts), len(some) / len(images)))
            start += len(some)
        return found

    @property
    def pool(self) -> Pool:
        """The labelled images and all others."""
        return self.loader.pool

    @property
    def images_per_step(self) -> int:
        """Images of a step, over all processes."""
        return self.loader.batches.batch_size * self.loader.batches.world_size

    def share(self, task: str) -> float:
        """Share of the images seen that carry a label of `task`, whichever task they were drawn for."""
        batches, labelled = self.loader.batches, self.loader.pool.targets[task].labelled
        carrying = [float(labelled[indices.numpy()].mean()) for indices in batches.indices.values()]
        return sum(n * part for n, part in zip(batches.counts, carrying, strict=True)) / len(batches.cycle)

    def evidence(self, step: int) -> dict[str, Tensor]:
        """What the step looked at, augmented."""
        batch: LabelledBatch = self.loader.at(step)
        return {"indices": batch.indices, "images": batch.images}

    def close(self) -> None:
        """End the loader's threads."""
        self.loader.close()

    def _counts(self, labels: Mapping[str, Labels]) -> dict[str, float]:
        """Labelled images of the step by task, as a mean over processes, whose gradients are averaged."""
        names = list(self.loader.tasks)
        counts = torch.tensor([float(len(labels[n].rows)) if n in labels else 0.0 for n in names], device=self.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            counts /= torch.distributed.get_world_size()
        return dict(zip(names, counts.tolist(), strict=True))


def _within(labels: Mapping[str, Labels], start: int, stop: int) -> dict[str, Labels]:
    """The labels of rows `start` to `stop`, numbered from 0; tasks without one are left out."""
    found = {name: own.between(start, stop) for name, own in labels.items()}
    return {name: own for name, own in found.items() if len(own.rows)}


def task_losses(tasks: Mapping[str, Task], targets: Mapping[str, Target], train: np.ndarray) -> dict[str, TaskLoss]:
    """Each task's loss; class weights and units come from the images `train` (N,) bool alone."""
    return {
        name: TaskLoss(
            targets[name].kind,
            task.label_smoothing,
            balanced_weights(targets[name], train) if task.class_weights == "balanced" else None,
            label_statistics(targets[name], train)[1],
        )
        for name, task in tasks.items()
    }


def task_head_specs(targets: Mapping[str, Target], train: np.ndarray) -> dict[str, TaskHeadSpec]:
    """The head that each task needs; the images `train` (N,) bool set the unit of numbers."""
    return {
        name: TaskHeadSpec(target.kind, target.num_outputs, *label_statistics(target, train))
        for name, target in targets.items()
    }


def label_statistics(target: Target, train: np.ndarray) -> tuple[float, float]:
    """(offset, scale) of a task's head: mean and standard deviation of training numbers, (0, 1) for classes."""
    return label_kind(target.kind).statistics(target.values[target.labelled & train])


def balanced_weights(target: Target, train: np.ndarray) -> Tensor | None:
    """(K,) float32: inversely proportional to the classes' frequency, of mean 1 over the training labels.

    For pixels, classes are counted over all masks of training images. None without classes.
    """
    kind, values = label_kind(target.kind), target.values[target.labelled & train]
    if not kind.has_classes:
        return None
    _, classes, times = kind.occurrences(values, target.masks)
    counts = np.bincount(classes, weights=times, minlength=len(target.class_names))
    weights = counts.sum() / np.maximum(counts, 1) / max((counts > 0).sum(), 1)
    return torch.tensor(weights, dtype=torch.float32)

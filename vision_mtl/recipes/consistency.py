"""Consistency in stage `joint`: which unlabelled images serve a task, the loss and its views, what is measured."""
# N images of the pool, n of them measured

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.run import Run
from vision_mtl.core.sums import SHARE, Measure, mean_of, ratio
from vision_mtl.data.label_kinds import LABEL_KINDS, label_kind
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.pool import Pool
from vision_mtl.data.source import SPLITS
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.evaluation.predictions import Autocast, predict_task
from vision_mtl.evaluation.scores import Score, score_measures
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.repair import images_per_process
from vision_mtl.training.consistency import ConsistencyFeed, ConsistencyObjective, agreement
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.step_record import Progress
from vision_mtl.training.supervised import TaskObjective
from vision_mtl.training.tracking import Tracker

MEASURED = 512  # unlabelled images of a task to measure the share of confident ones on: an error below .05


@dataclass(frozen=True)
class Consistency:
    """The options of consistency, and the unlabelled images that serve each task, (N,) bool over the pool."""

    weight: float
    threshold: float
    unlabelled: Mapping[str, np.ndarray]

    @property
    def indices(self) -> torch.Tensor:
        """The indices (n,) of all images that serve a task."""
        return torch.from_numpy(np.flatnonzero(np.any(list(self.unlabelled.values()), axis=0)))


def check_consistency(weight: float, threshold: float, image_ratio: float) -> None:
    """Raise `UserError` for an option out of range."""
    if not weight >= 0:
        raise UserError(f"joint.consistency_weight must be 0 or more; found {weight}.")
    if not 0.5 < threshold < 1:
        raise UserError(f"joint.consistency_threshold must lie in (0.5, 1); found {threshold}.")
    if not 0 < image_ratio < 1:
        raise UserError(f"joint.consistency_ratio must lie in (0, 1); found {image_ratio}.")


def unlabelled_images(
    config: RunConfig, run: Run, labelled: LabelledTasks, images: Mapping[str, str | Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return the unlabelled images that serve each task, (N,) bool: training images without a label in its budget.

    They are of the task's source, or of the sources that `images` names for it. Tasks without any are absent, with a
    warning. Raises `UserError` for a kind of label that has no pseudo-labels, an unknown name, and if no task has one.
    """
    for name in images:
        if name not in config.tasks:
            raise unknown("task in joint.consistency_images", name, config.tasks)
    found = {}
    for name, task in config.tasks.items():
        given = images.get(name, task.source)
        sources = [given] if isinstance(given, str) else given
        if not sources:
            continue
        _check_kind(name, task.kind)
        rows = _rows_of(labelled.pool, sources)
        rows[labelled.train[name].numpy()] = False
        if rows.any():
            found[name] = rows
        else:
            run.warn(
                f"task {name} has no unlabelled image, so consistency does not train it: all training images of "
                f"{', '.join(sources)} have a label in its budget. Lower --joint.label_fraction, or name other sources "
                f"with --joint.consistency_images.{name}."
            )
    if not found:
        raise UserError(
            "joint.consistency_weight is above 0, but no task has an unlabelled image: all labels are in the budget. "
            "Lower --joint.label_fraction, or name sources with --joint.consistency_images.TASK SOURCE."
        )
    return found


def warn_about_unused_images(config: RunConfig, run: Run, images: Mapping[str, str | Sequence[str]]) -> None:
    """Warn of unlabelled sources that a run without repair does not use."""
    used = [task.source for task in config.tasks.values()]
    for given in images.values():
        used += [given] if isinstance(given, str) else given
    unused = [source for source in config.data.unlabelled or [] if source not in used]
    if unused:
        run.warn(
            f"{', '.join(unused)} of data.unlabelled: not used, because joint.repair_ratio is 0 and no task names such "
            "a source in joint.consistency_images."
        )


def _check_kind(name: str, kind: str) -> None:
    if not label_kind(kind).has_pseudo_labels:
        able = [k for k in LABEL_KINDS.names() if label_kind(k).has_pseudo_labels]
        raise UserError(
            f"consistency needs a task of kind {' or '.join(able)}, but {name} is of kind {kind}: leave it out with "
            f"--joint.consistency_images.{name} []."
        )


def _rows_of(pool: Pool, sources: Sequence[str]) -> np.ndarray:
    """Return the training images of `sources`, (N,) bool."""
    for source in sources:
        if source not in pool.sources:
            error = unknown("source in joint.consistency_images", source, pool.sources)
            raise UserError(f"{error} A source of no task must be one of --data.unlabelled too.")
    rows = pool.member[:, [pool.sources.index(source) for source in sources]].any(1)
    return rows & (pool.split == SPLITS.index("train"))


def build_consistency_objective(
    consistency: Consistency, tasks: TaskObjective, labelled: LabelledTasks
) -> ConsistencyObjective:
    """Return the objective; a task's loss and weight are those of its labels."""
    losses = {name: tasks.losses[name] for name in consistency.unlabelled}
    weights = {name: labelled.tasks[name].weight for name in losses}
    return ConsistencyObjective(losses, weights, consistency.threshold, consistency.weight)


def build_consistency_feed(
    consistency: Consistency,
    labelled: LabelledTasks,
    optim: Optim,
    accelerator: Accelerator,
    seed: int,
    *,
    temperature: float,
    num_workers: int = 0,
) -> ConsistencyFeed:
    """Return this process's batches of unlabelled images, which mix the tasks as the labelled ones do."""
    indices = {name: torch.from_numpy(np.flatnonzero(rows)) for name, rows in consistency.unlabelled.items()}
    batches = TaskBatches(
        indices,
        images_per_process(optim, accelerator.num_processes),
        seed,
        temperature=temperature,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    tasks, pin = {name: labelled.tasks[name] for name in indices}, accelerator.device.type == "cuda"
    weak, strong = (
        TaskLoader(labelled.pool, tasks, batches, seed, num_workers, pin, strong=strong) for strong in (False, True)
    )
    return ConsistencyFeed(weak, strong, consistency.unlabelled, accelerator.device)


@dataclass(frozen=True)
class ConsistencyReport:
    """An action that measures and logs how many pseudo-labels there are, and how many of them are right."""

    trainer: Trainer[Any]
    pool: Pool
    consistency: Consistency

    def __call__(self, progress: Progress, tracker: Tracker) -> None:
        """Measure and log."""
        autocast = self.trainer.accelerator.autocast
        scores = measure_consistency(self.trainer.scored_model, self.pool, self.consistency, autocast)
        values = {task: {name: score["value"] for name, score in own.items()} for task, own in scores.items()}
        tracker.run.log({"kind": "consistency", "step": progress.step, "tasks": values})
        flat = {f"consistency/{task}/{name}": value for task, own in values.items() for name, value in own.items()}
        tracker.scalars(progress.step, flat)


def measure_consistency(
    model: SharedModel, pool: Pool, consistency: Consistency, autocast: Autocast
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return task -> `share` and `pseudo_accuracy`, as `result.json` has them.

    `share` of the decisions on unlabelled images are confident, and `pseudo_accuracy` of the confident decisions on
    validation images are right; the latter is absent where no decision is confident. Images are not augmented. The
    pool's validation labels must be those of the budget.
    """
    found: dict[str, dict[str, Any]] = {}
    for task, rows in consistency.unlabelled.items():
        indices = spread_evenly(torch.from_numpy(np.flatnonzero(rows)), MEASURED)
        confident, _ = _agreement(model, pool, task, indices, consistency.threshold, autocast)
        scores = score_measures({"share": mean_of(_per_image(confident))}, pool.cluster[indices.numpy()])
        found[task] = {name: score.to_json() for name, score in scores.items()}
        accuracy = _pseudo_accuracy(model, pool, task, consistency.threshold, autocast)
        found[task] |= {} if accuracy is None else {"pseudo_accuracy": accuracy.to_json()}
    return found


def _pseudo_accuracy(model: SharedModel, pool: Pool, task: str, threshold: float, autocast: Autocast) -> Score | None:
    """Return the share of the confident decisions on validation images that are right; None without any."""
    indices = pool.indices("val", task=task)
    if len(indices) == 0:
        return None
    confident, right = _agreement(model, pool, task, indices, threshold, autocast)
    rows = confident.any(1)
    if not rows.any():
        return None
    parts = np.stack([right[rows].sum(1), confident[rows].sum(1)], axis=1).astype(np.float64)
    one = mean_of(right[rows, 0]) if right.shape[1] == 1 else Measure(parts, ratio(0, 1), limits=SHARE)
    return score_measures({"": one}, pool.cluster[indices.numpy()[rows]])[""]


def _agreement(
    model: SharedModel, pool: Pool, task: str, indices: torch.Tensor, threshold: float, autocast: Autocast
) -> tuple[np.ndarray, np.ndarray]:
    predictions = predict_task(model, pool, task, indices, autocast)
    target = predictions.target
    return agreement(target.kind, predictions.outputs, target.gather(indices), threshold)


def _per_image(confident: np.ndarray) -> np.ndarray:
    """Return (n,) bool for one decision an image, else the share of its decisions (n,)."""
    return confident[:, 0] if confident.shape[1] == 1 else confident.mean(1)

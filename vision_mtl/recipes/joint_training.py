"""Several losses in one step: how the batch is split, how the repair loss is weighted, the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.predictions import predict_split
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.consistency import Consistency, measure_consistency
from vision_mtl.recipes.fit import write_result
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.repair_scores import score_repairs
from vision_mtl.recipes.supervised import TaskTrainer, Validation
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_test_instances
from vision_mtl.training.consistency import CONSISTENCY
from vision_mtl.training.joint import TASKS
from vision_mtl.training.options import Optim
from vision_mtl.training.progress import phase
from vision_mtl.training.repair import REPAIR, PretextObjective

Schedule = Literal["constant", "fall", "rise"]


def write_joint_result(
    config: RunConfig,
    run: Run,
    pool: Pool,
    labelled: LabelledTasks,
    trainer: TaskTrainer,
    validation: Validation,
    repair: PretextObjective | None,
    start: SharedModel | None,
    consistency: Consistency | None,
) -> None:
    """Score tasks and repairs on the test images; write figures and result. `start` is the model before training."""
    model, autocast = trainer.scored_model, trainer.accelerator.autocast
    with phase(run.speaker, "scoring the test images") as show:
        predictions = predict_split(model, pool, "test", list(labelled.tasks), autocast, show=show)
        metrics = run_metrics(model, labelled, predictions, validation, trainer)
    if repair is not None:
        metrics |= score_repairs(config, run, model, pool, repair.mixture, autocast, start)
    if consistency is not None:
        with phase(run.speaker, "scoring pseudo-labels"):
            metrics["consistency"] = measure_consistency(model, labelled.pool, consistency, autocast)
    with phase(run.speaker, "drawing figures"):
        write_test_instances(run, model, labelled, predictions)
        write_figures(run, model, pool, predictions, metrics)
    write_result(run, trainer, metrics, pool.summary())


def split_batch(optim: Optim, repair_ratio: float, consistency_ratio: float) -> dict[str, Optim]:
    """Return the options of each part of a step's batch: repair, tasks, consistency; together `batch_size` images.

    A ratio of 0 leaves its part out, every other part has at least one image. `consistency_ratio` is a share of the
    images that are not repaired. Raises `UserError` for a repair ratio out of range, if both are 0, for fewer images
    than parts, and for more micro-batches than the smallest part has images.
    """
    if not 0 <= repair_ratio < 1:
        raise UserError(f"joint.repair_ratio must lie in [0, 1); found {repair_ratio}.")
    if not repair_ratio and not consistency_ratio:
        raise UserError(
            "joint.repair_ratio 0 and joint.consistency_weight 0 leave labels alone: use --stage finetune for that."
        )
    count = 1 + bool(repair_ratio) + bool(consistency_ratio)
    if optim.batch_size < count:
        raise UserError(f"joint needs optim.batch_size of {count} or more; found {optim.batch_size}.")
    damaged = _part(optim.batch_size, repair_ratio, count - 1)
    unlabelled = _part(optim.batch_size - damaged, consistency_ratio, 1)
    sizes = {REPAIR: damaged, TASKS: optim.batch_size - damaged - unlabelled, CONSISTENCY: unlabelled}
    sizes = {name: size for name, size in sizes.items() if size}
    if optim.accumulate > min(sizes.values()):
        raise UserError(
            f"joint: optim.accumulate must be at most {min(sizes.values())}, the images of the smallest of a step's "
            f"{len(sizes)} batches; found {optim.accumulate}."
        )
    return {name: replace(optim, batch_size=size) for name, size in sizes.items()}


def _part(size: int, ratio: float, rest: int) -> int:
    """Return the share `ratio` of `size` images, at least one (0 for a ratio of 0), and at least `rest` are left."""
    return min(max(1, round(size * ratio)), size - rest) if ratio else 0


def weight_schedule(weight: float, schedule: Schedule) -> Callable[[float], float]:
    """Return the function from a share of training to the repair loss's weight; raise `UserError` for one below 0."""
    if not weight >= 0:
        raise UserError(f"joint.repair_weight must be 0 or more; found {weight}.")
    if schedule == "constant":
        return lambda progress: weight
    start = 0.0 if schedule == "fall" else 1.0
    return lambda progress: weight * 0.5 * (1 + math.cos(math.pi * (progress + start)))

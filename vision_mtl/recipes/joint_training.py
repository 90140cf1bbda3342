"""Task and repair losses in one step: how the batch is split, how the repair loss is weighted, the result."""

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
from vision_mtl.recipes.fit import write_result
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.repair_scores import score_repairs
from vision_mtl.recipes.supervised import TaskTrainer, Validation
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_test_instances
from vision_mtl.training.options import Optim
from vision_mtl.training.progress import phase
from vision_mtl.training.repair import PretextObjective

Schedule = Literal["constant", "fall", "rise"]


def write_joint_result(
    config: RunConfig,
    run: Run,
    pool: Pool,
    labelled: LabelledTasks,
    trainer: TaskTrainer,
    validation: Validation,
    repair: PretextObjective,
    start: SharedModel,
) -> None:
    """Score tasks and repairs on the test images; write figures and result. `start` is the model before training."""
    model, autocast = trainer.scored_model, trainer.accelerator.autocast
    with phase(run.speaker, "scoring the test images"):
        predictions = predict_split(model, pool, "test", list(labelled.tasks), autocast)
        metrics = run_metrics(model, labelled, predictions, validation, trainer)
    metrics |= score_repairs(config, run, model, pool, repair.mixture, autocast, start)
    write_test_instances(run, model, labelled, predictions)
    with phase(run.speaker, "drawing figures"):
        write_figures(run, model, pool, predictions, metrics)
    write_result(run, trainer, metrics, pool.summary())


def split_batch(optim: Optim, repair_ratio: float) -> tuple[Optim, Optim]:
    """Return the options of the repair batch and of the task batch, which together have `batch_size` images.

    Each has at least one. Raises `UserError` for a ratio outside (0, 1), a batch of one image, and more micro-batches
    than the smaller batch has images.
    """
    if not 0 < repair_ratio < 1:
        raise UserError(f"joint.repair_ratio must lie in (0, 1); found {repair_ratio}. For 0 use --stage finetune.")
    if optim.batch_size < 2:
        raise UserError(f"joint needs optim.batch_size of 2 or more; found {optim.batch_size}.")
    damaged = min(max(1, round(optim.batch_size * repair_ratio)), optim.batch_size - 1)
    smaller = min(damaged, optim.batch_size - damaged)
    if optim.accumulate > smaller:
        raise UserError(
            f"joint: optim.accumulate must be at most {smaller}, the images of the smaller of a step's two batches; "
            f"found {optim.accumulate}."
        )
    return replace(optim, batch_size=damaged), replace(optim, batch_size=optim.batch_size - damaged)


def weight_schedule(weight: float, schedule: Schedule) -> Callable[[float], float]:
    """Return the function from a share of training to the repair loss's weight; raise `UserError` for one below 0."""
    if not weight >= 0:
        raise UserError(f"joint.repair_weight must be 0 or more; found {weight}.")
    if schedule == "constant":
        return lambda progress: weight
    start = 0.0 if schedule == "fall" else 1.0
    return lambda progress: weight * 0.5 * (1 + math.cos(math.pi * (progress + start)))

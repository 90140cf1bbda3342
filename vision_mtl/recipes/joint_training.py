"""Supervised and self-supervised losses in one step: the batch's halves, the weight's schedule, the scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.evaluation.predictions import predict_split
from vision_mtl.recipes.fit import write_result
from vision_mtl.recipes.labels import Labelled
from vision_mtl.recipes.supervised import Validation
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.repair import PretextObjective

Schedule = Literal["constant", "fall", "rise"]


def report(
    run: Run, pool: Pool, labelled: Labelled, trainer: Trainer, validation: Validation, repair: PretextObjective
) -> None:
    """Score tasks and repairs on the test images, draw, write the result."""
    model, autocast = trainer.scored_model, trainer.accelerator.autocast
    found = predict_split(model, pool, "test", list(labelled.tasks), autocast)
    metrics = run_metrics(model, labelled, found, validation, trainer)
    metrics |= score_pretexts(model, pool, repair.mixture, autocast)
    write_judged(run, labelled, found)
    write_figures(run, model, pool, found, metrics)
    write_result(run, trainer, metrics, pool.summary())


def split_batch(optim: Optim, repair_ratio: float) -> tuple[Optim, Optim]:
    """The options of the two halves of a step: `batch_size` images together, at least one of each.

    Raises `UserError`.
    """
    if not 0 < repair_ratio < 1:
        raise UserError(f"joint.repair_ratio must lie in (0, 1); found {repair_ratio}. For 0 use --stage finetune.")
    if optim.batch_size < 2:
        raise UserError(f"joint needs optim.batch_size of 2 or more; found {optim.batch_size}.")
    damaged = min(max(1, round(optim.batch_size * repair_ratio)), optim.batch_size - 1)
    smaller = min(damaged, optim.batch_size - damaged)
    if optim.accumulate > smaller:
        raise UserError(
            f"joint: optim.accumulate must be at most {smaller}, the images of the smaller half of a step; "
            f"found {optim.accumulate}."
        )
    values = vars(optim)
    return Optim(**{**values, "batch_size": damaged}), Optim(**{**values, "batch_size": optim.batch_size - damaged})


def weight_schedule(weight: float, schedule: Schedule) -> Callable[[float], float]:
    """The repair loss's weight at a share of training. Raises `UserError` for a weight below 0."""
    if not weight >= 0:
        raise UserError(f"joint.repair_weight must be 0 or more; found {weight}.")
    if schedule == "constant":
        return lambda progress: weight
    start = 0.0 if schedule == "fall" else 1.0
    return lambda progress: weight * 0.5 * (1 + math.cos(math.pi * (progress + start)))

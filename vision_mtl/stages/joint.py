"""Semi-supervised training: the tasks' losses on labelled images and repair of all images, in the same steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.evaluation.predictions import predict_split
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import make_trainer, write_result
from vision_mtl.recipes.labels import Labelled, open_labels
from vision_mtl.recipes.repair import build_repair_objective, repair_feed, training_images
from vision_mtl.recipes.run_warnings import remember_images
from vision_mtl.recipes.supervised import Validation, build_balancing, build_feed, build_objective, finish, train_tasks
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
from vision_mtl.recipes.tuned import tuned
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.joint import JointFeed, JointObjective
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.repair import REPAIR, PretextObjective
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Track

SECTIONS = ("data", "tasks", "pretexts", "backbone", "decoder", "optim", "balance", "runtime", "track")
Schedule = Literal["constant", "fall", "rise"]


@STAGES.register("joint")
def joint(
    config: RunConfig,
    run: Run,
    *,
    label_fraction: float = 1.0,  # share of each task's training labels that is used, stratified by class
    temperature: float = 0.5,  # a task's share of a batch is its number of images to this power: 1 by size, 0 all alike
    repair_ratio: float = 0.5,  # share of a step's images that are damaged and repaired; the others carry labels
    repair_weight: float = 1.0,  # of the repair loss, in units of chance, beside the tasks' losses
    schedule: Literal["constant", "fall", "rise"] = "constant",  # of repair_weight over the run: fall to 0 or rise from
    # 0, both as half a cosine
    num_evaluations: int = 10,  # times the tasks are scored on validation images, evenly over the run; the best counts
    keep_best_per_task: bool = True,  # keep the weights of each task's own best evaluation as well
    drop_path_ratio: float = 0.0,  # stochastic depth: share of images that skip the deepest block; 0 suits small nets
) -> None:
    """As finetune, with repair of all training images, labelled or not, in every step (S4L, Zhai et al., 2019)."""
    track, accelerator = Track(**config.track), Runtime(**config.runtime).accelerator(config.device)
    pool = build.open_pool(config, run)
    labelled = open_labels(config, run, pool, label_fraction)
    damaged, with_labels = split_batch(Optim(**config.optim), repair_ratio)

    pretexts = build.build_pretexts(config)
    torch.manual_seed(config.seed)
    own = labelled.pool, list(labelled.tasks), labelled.train_rows
    model = build.build_task_model(config, *own, drop_path_ratio, pretexts)
    if config.start:
        build.load_weights(model, config.start)
    indices = training_images(config, pool)
    remember_images(run, pool, indices, config.init_from)
    repair = build_repair_objective(config, run, pool, pretexts, indices)
    repair = PretextObjective(repair.mixture, repair.chance_losses, weight_schedule(repair_weight, schedule))
    damaged_feed = repair_feed(config, pool, indices, damaged, accelerator)
    workers = config.data["num_workers"]
    tasks_feed = build_feed(
        labelled, with_labels, accelerator, config.seed, temperature=temperature, num_workers=workers
    )
    objective = JointObjective({REPAIR: repair, "tasks": build_objective(labelled)})
    feed = JointFeed({REPAIR: damaged_feed, "tasks": tasks_feed})
    balancing = build_balancing(Balance(**config.balance), model, labelled.tasks, [REPAIR])
    trainer = tuned(config, run, make_trainer(config, accelerator, model, objective, feed, balancing))
    validation = train_tasks(config, run, trainer, track, labelled, num_evaluations, keep_best_per_task)
    finish(run, validation)
    report(run, pool, labelled, trainer, validation, repair)


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

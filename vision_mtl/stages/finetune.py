"""Supervised training of several tasks at once on one backbone, pretrained or not, beside single-task networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.run import Run
from vision_mtl.evaluation.predictions import predict_split
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import make_trainer, write_result
from vision_mtl.recipes.labels import Labelled, open_labels
from vision_mtl.recipes.run_warnings import remember_images
from vision_mtl.recipes.single_task import transfer
from vision_mtl.recipes.supervised import Validation, build_balancing, build_feed, build_objective, finish, train_tasks
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
from vision_mtl.recipes.tuned import tuned
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.loop import Trainer
from vision_mtl.training.mixing import Mixing
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.tracking import Track

SECTIONS = ("data", "tasks", "backbone", "decoder", "optim", "balance", "runtime", "track")


@STAGES.register("finetune")
def finetune(
    config: RunConfig,
    run: Run,
    *,
    label_fraction: float = 1.0,  # share of each task's training labels that is used, stratified by class
    temperature: float = 0.5,  # a task's share of a batch is its number of images to this power: 1 by size, 0 all alike
    num_evaluations: int = 10,  # times the tasks are scored on validation images, evenly over the run; the best counts
    keep_best_per_task: bool = True,  # keep the weights of each task's own best evaluation as well
    freeze: Literal["none", "early", "all"] = "none",  # of the backbone: early leaves its last stage to train
    drop_path_ratio: float = 0.0,  # stochastic depth: share of images that skip the deepest block; 0 suits small nets
    mixup: float = 0.0,  # strength (alpha) of mixup between images of one task; 0: off, best for small sets
    cutmix: float = 0.0,  # strength (alpha) of CutMix, likewise
    single_task: Literal["none", "same_images", "same_steps"] = "none",  # train each task alone as well, to measure
    # transfer: on as many labelled images of it as the shared network sees, or for as many steps
) -> None:
    """Open the labels, build the model, train, choose on validation, score on the test images, compare, draw."""
    optim, track = Optim(**config.optim), Track(**config.track)
    accelerator = Runtime(**config.runtime).accelerator(config.device)
    pool = build.open_pool(config, run)
    labelled = open_labels(config, run, pool, label_fraction)
    remember_images(run, pool, labelled.train_indices, config.init_from)
    mixing = Mixing(mixup_alpha=mixup, cutmix_alpha=cutmix)

    def trainer_of(tasks: Labelled, fitted: Optim) -> Trainer:
        torch.manual_seed(config.seed)
        model = build.build_task_model(config, tasks.pool, list(tasks.tasks), tasks.train_rows, drop_path_ratio)
        if config.start:
            build.load_weights(model, config.start)
        build.freeze_backbone(model, freeze)
        feed = build_feed(
            tasks,
            fitted,
            accelerator,
            config.seed,
            temperature=temperature,
            mixing=mixing,
            num_workers=config.data["num_workers"],
        )
        # a task alone has nobody to agree with: its own network is fitted to its loss
        alone = tasks is not labelled
        balancing = None if alone else build_balancing(Balance(**config.balance), model, tasks.tasks)
        trainer = make_trainer(config, accelerator, model, build_objective(tasks), feed, balancing, fitted)
        return tuned(config, run, trainer)

    trainer = trainer_of(labelled, optim)
    validation = train_tasks(config, run, trainer, track, labelled, num_evaluations, keep_best_per_task)
    model = finish(run, validation)
    found = predict_split(model, pool, "test", list(labelled.tasks), accelerator.autocast)
    metrics = run_metrics(model, labelled, found, validation, trainer)
    if single_task != "none":

        def train_alone(part: Run, alone: Trainer, own: Labelled) -> Validation:
            return train_tasks(config, part, alone, replace(track, tensorboard=False), own, num_evaluations, False)

        metrics |= transfer(run, labelled, found, trainer, trainer_of, train_alone, single_task)
    write_judged(run, labelled, found)
    write_figures(run, model, pool, found, metrics)
    write_result(run, trainer, metrics, pool.summary())

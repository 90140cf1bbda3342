"""Supervised training of several tasks at once on one backbone, pretrained or not, beside single-task networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS, Stage
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole
from vision_mtl.training.options import Optim


@STAGES.register("finetune")
@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Open the labels, build the model, train, choose on validation, score on the test images, compare, draw."""

    sections: ClassVar = (
        "data",
        "tasks",
        "backbone",
        "decoder",
        "optim",
        "balance",
        "runtime",
        "track",
    )
    inherits_images: ClassVar = True
    uses_unlabelled: ClassVar = False
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS
    arm: ClassVar = ArmRole(
        judged=True,
        gives_weights=True,
        fraction_option="label_fraction",
        options={"optim": {"steps": 150}, "finetune": {"keep_best_per_task": False}},
    )

    label_fraction: float = 1.0
    """Share of each task's training labels that is used, stratified by class."""
    temperature: float = 0.5
    """A task's share of a batch is its number of images to this power: 1 by size, 0 all alike."""
    num_evaluations: int = 10
    """Times the tasks are scored on validation images, evenly over the run; the best counts."""
    keep_best_per_task: bool = True
    """Keep the weights of each task's own best evaluation as well."""
    freeze: Literal["none", "early", "all"] = "none"
    """Of the backbone: early leaves its last stage to train."""
    drop_path_ratio: float = 0.0
    """Stochastic depth: share of images that skip the deepest block; 0 suits small nets."""
    mixup: float = 0.0
    """Strength (alpha) of mixup between images of one task; 0: off, best for small sets."""
    cutmix: float = 0.0
    """Strength (alpha) of CutMix, likewise."""
    single_task: Literal["none", "same_images", "same_steps"] = "none"
    """Train each task alone as well, to measure transfer: on as many labelled images of it as the shared network sees,
    or for as many steps."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.predictions import predict_split
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.recipes import build
        from vision_mtl.recipes.fit import make_trainer, write_result
        from vision_mtl.recipes.labels import Labelled, open_labels
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.single_task import transfer
        from vision_mtl.recipes.supervised import (
            Validation,
            build_balancing,
            build_feed,
            build_objective,
            finish,
            train_tasks,
        )
        from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
        from vision_mtl.training.loop import Trainer
        from vision_mtl.training.mixing import Mixing

        optim, track = config.optim, config.track
        accelerator = config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        labelled = open_labels(config, run, pool, self.label_fraction)
        remember_images(run, pool, labelled.train_indices, config.init_from)
        mixing = Mixing(mixup_alpha=self.mixup, cutmix_alpha=self.cutmix)

        def trainer_of(tasks: Labelled, fitted: Optim) -> Trainer:
            torch.manual_seed(config.seed)
            model = build.build_task_model(
                config, tasks.pool, list(tasks.tasks), tasks.train_rows, self.drop_path_ratio
            )
            if config.start:
                load_fitting_weights(model, config.start)
            build.freeze_backbone(model, self.freeze)
            feed = build_feed(
                tasks,
                fitted,
                accelerator,
                config.seed,
                temperature=self.temperature,
                mixing=mixing,
                num_workers=config.data.num_workers,
            )
            # a task alone has nobody to agree with: its own network is fitted to its loss
            alone = tasks is not labelled
            balancing = None if alone else build_balancing(config.balance, model, tasks.tasks)
            trainer = make_trainer(config, accelerator, model, build_objective(tasks), feed, balancing, fitted)
            return trainer

        trainer = trainer_of(labelled, optim)
        validation = train_tasks(config, run, trainer, track, labelled, self.num_evaluations, self.keep_best_per_task)
        model = finish(run, validation)
        found = predict_split(model, pool, "test", list(labelled.tasks), accelerator.autocast)
        metrics = run_metrics(model, labelled, found, validation, trainer)
        if self.single_task != "none":

            def train_alone(part: Run, alone: Trainer, own: Labelled) -> Validation:
                return train_tasks(
                    config, part, alone, replace(track, tensorboard=False), own, self.num_evaluations, False
                )

            metrics |= transfer(run, labelled, found, trainer, trainer_of, train_alone, self.single_task)
        write_judged(run, labelled, found)
        write_figures(run, model, pool, found, metrics)
        write_result(run, trainer, metrics, pool.summary())

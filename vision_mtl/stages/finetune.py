"""Train several tasks on one backbone, pretrained or random, and compare with single-task networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole
from vision_mtl.training.options import Optim


@STAGES.register("finetune")
@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Train all tasks together, keep the best weights on validation images, score them on the test images.

    On request, train each task alone as well and measure what sharing the backbone gained or lost.
    """

    sections: ClassVar = ("data", "tasks", "backbone", "decoder", "optim", "balance", "runtime", "track", "score")
    inherits_images: ClassVar = True
    uses_unlabelled: ClassVar = False
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS
    arm: ClassVar = ArmRole(
        judged=True,
        gives_weights=True,
        noun="fine-tuning",
        fraction_option="label_fraction",
        options={"optim": {"steps": 150}, "finetune": {"keep_best_per_task": False}},
    )

    label_fraction: float = 1.0
    """Share of each task's training and validation labels to use, in (0, 1], stratified by class."""
    temperature: float = 0.5
    """Exponent that gives a task its share of a batch from its number of images. 1: proportional; 0: equal shares."""
    num_evaluations: int = 10
    """Evaluations on validation images, evenly spaced over the run; the best weights are kept."""
    keep_best_per_task: bool = True
    """Keep the weights of each task's best evaluation too."""
    freeze: Literal["none", "early", "all"] = "none"
    """Layers of the backbone to freeze. none: train all; early: all but the last stage; all: train only the heads."""
    drop_path_ratio: float = 0.0
    """Stochastic depth: share of images that skip the deepest block, in [0, 1); 0 suits small networks."""
    mixup: float = 0.0
    """Strength (alpha) of mixup between images of one task. 0: off, best for small sets."""
    cutmix: float = 0.0
    """Strength (alpha) of CutMix between images of one task. 0: off."""
    single_task: Literal["none", "same_images", "same_steps"] = "none"
    """Single-task networks to train for comparison. none: no; same_images: on as many labelled images of the task as
    the shared network sees; same_steps: for as many steps."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.predictions import predict_split
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.recipes import build
        from vision_mtl.recipes.fit import make_trainer, write_result
        from vision_mtl.recipes.labels import LabelledTasks, open_labels
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.single_task import measure_transfer
        from vision_mtl.recipes.supervised import (
            TaskTrainer,
            Validation,
            build_balancing,
            build_feed,
            build_objective,
            finish,
            train_tasks,
        )
        from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_test_instances
        from vision_mtl.training.mixing import Mixing
        from vision_mtl.training.progress import phase

        accelerator = config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        labelled = open_labels(config, run, pool, self.label_fraction)
        remember_images(run, pool, labelled.train_indices, config.init_from)
        mixing = Mixing(mixup_alpha=self.mixup, cutmix_alpha=self.cutmix)

        def build_trainer(trained: LabelledTasks, optim: Optim) -> TaskTrainer:
            torch.manual_seed(config.seed)
            own = run if trained is labelled else None  # a single-task network needs the initial weights
            model = build.build_task_model(config, trained.pool, list(trained.tasks), self.drop_path_ratio, run=own)
            if config.start:
                load_fitting_weights(model, config.start)
            build.freeze_backbone(model, self.freeze)
            feed = build_feed(
                trained,
                optim,
                accelerator,
                config.seed,
                temperature=self.temperature,
                mixing=mixing,
                num_workers=config.data.num_workers,
            )
            # a single-task network has one loss, so there is nothing to balance
            balancing = build_balancing(config.balance, model, trained.tasks) if trained is labelled else None
            return make_trainer(config, accelerator, model, build_objective(trained), feed, balancing, optim)

        def train_alone(task_run: Run, trainer: TaskTrainer, task: LabelledTasks) -> Validation:
            track = replace(config.track, tensorboard=False)
            return train_tasks(config, task_run, trainer, track, task, self.num_evaluations, False)

        trainer = build_trainer(labelled, config.optim)
        validation = train_tasks(
            config, run, trainer, config.track, labelled, self.num_evaluations, self.keep_best_per_task
        )
        model = finish(run, validation)

        with phase(run.speaker, "scoring the test images") as show:
            predictions = predict_split(model, pool, "test", list(labelled.tasks), accelerator.autocast, show=show)
            metrics = run_metrics(model, labelled, predictions, validation, trainer)
        if self.single_task != "none":
            metrics |= measure_transfer(
                run, labelled, predictions, trainer, build_trainer, train_alone, self.single_task
            )
        with phase(run.speaker, "drawing figures"):
            write_test_instances(run, model, labelled, predictions)
            write_figures(run, model, pool, predictions, metrics)
        write_result(run, trainer, metrics, pool.summary())

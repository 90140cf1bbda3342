"""Semi-supervised training: task losses on labelled images and repair losses on all images, in the same steps."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("joint")
@dataclass(frozen=True, kw_only=True)
class Joint(Stage):
    """Train as finetune does, and repair training images, labelled or not, in every step.

    After S4L: Zhai et al., 2019, https://arxiv.org/abs/1905.03670.
    """

    sections: ClassVar = (
        "data",
        "tasks",
        "pretexts",
        "backbone",
        "decoder",
        "optim",
        "balance",
        "runtime",
        "track",
        "score",
    )
    inherits_images: ClassVar = True
    mixes_pretexts_with_tasks: ClassVar = True
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS
    arm: ClassVar = ArmRole(
        judged=True,
        gives_weights=True,
        noun="joint training",
        fraction_option="label_fraction",
        options={"optim": {"steps": 150}, "joint": {"keep_best_per_task": False}},
    )

    label_fraction: float = 1.0
    """Share of each task's training and validation labels to use, in (0, 1], stratified by class."""
    temperature: float = 0.5
    """Exponent that gives a task its share of a batch from its number of images. 1: proportional; 0: equal shares."""
    repair_ratio: float = 0.5
    """Share of a step's images that are damaged and repaired, in (0, 1); the others are labelled."""
    repair_weight: float = 1.0
    """Weight of the repair loss, which is in units of its chance loss, relative to the task losses; 0 or more."""
    schedule: Literal["constant", "fall", "rise"] = "constant"
    """Schedule of repair_weight over the run. constant: unchanged; fall: to 0, as half a cosine; rise: from 0, as half
    a cosine."""
    num_evaluations: int = 10
    """Evaluations on validation images, evenly spaced over the run; the best weights are kept."""
    keep_best_per_task: bool = True
    """Keep the weights of each task's best evaluation too."""
    drop_path_ratio: float = 0.0
    """Stochastic depth: share of images that skip the deepest block, in [0, 1); 0 suits small networks."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.recipes import build
        from vision_mtl.recipes.fit import make_trainer
        from vision_mtl.recipes.joint_training import split_batch, weight_schedule, write_joint_result
        from vision_mtl.recipes.labels import open_labels
        from vision_mtl.recipes.repair import build_repair_feed, build_repair_objective, training_images
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
        from vision_mtl.training.joint import JointFeed, JointObjective
        from vision_mtl.training.repair import REPAIR, PretextObjective

        accelerator = config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        labelled = open_labels(config, run, pool, self.label_fraction)
        repair_optim, task_optim = split_batch(config.optim, self.repair_ratio)

        pretexts = build.build_pretexts(config)
        torch.manual_seed(config.seed)
        model = build.build_task_model(config, labelled.pool, list(labelled.tasks), self.drop_path_ratio, pretexts)
        if config.start:
            load_fitting_weights(model, config.start)
        start = deepcopy(model)  # before a resume loads later weights
        indices = training_images(config, pool)
        remember_images(run, pool, indices, config.init_from)

        unweighted = build_repair_objective(config, run, pool, pretexts, indices)
        repair = PretextObjective(
            unweighted.mixture, unweighted.chance_losses, weight_schedule(self.repair_weight, self.schedule)
        )
        repair_feed = build_repair_feed(config, pool, indices, repair_optim, accelerator)
        task_feed = build_feed(
            labelled,
            task_optim,
            accelerator,
            config.seed,
            temperature=self.temperature,
            num_workers=config.data.num_workers,
        )
        objective = JointObjective({REPAIR: repair, "tasks": build_objective(labelled)})
        feed = JointFeed({REPAIR: repair_feed, "tasks": task_feed})
        balancing = build_balancing(config.balance, model, labelled.tasks, [REPAIR])

        trainer = make_trainer(config, accelerator, model, objective, feed, balancing)
        validation = train_tasks(
            config, run, trainer, config.track, labelled, self.num_evaluations, self.keep_best_per_task
        )
        finish(run, validation)
        write_joint_result(config, run, pool, labelled, trainer, validation, repair, start)

"""Semi-supervised training: the tasks' losses on labelled images and repair of all images, in the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS, Stage
from vision_mtl.core.run import Run
from vision_mtl.study.roles import ArmRole


@STAGES.register("joint")
@dataclass(frozen=True, kw_only=True)
class Joint(Stage):
    """As finetune, with repair of all training images, labelled or not, in every step (S4L, Zhai et al., 2019)."""

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
    )
    inherits_images: ClassVar = True
    mixes_pretexts_with_tasks: ClassVar = True
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS
    arm: ClassVar = ArmRole(
        judged=True,
        gives_weights=True,
        fraction_option="label_fraction",
        options={"optim": {"steps": 150}, "joint": {"keep_best_per_task": False}},
    )

    label_fraction: float = 1.0
    """Share of each task's training labels that is used, stratified by class."""
    temperature: float = 0.5
    """A task's share of a batch is its number of images to this power: 1 by size, 0 all alike."""
    repair_ratio: float = 0.5
    """Share of a step's images that are damaged and repaired; the others carry labels."""
    repair_weight: float = 1.0
    """Of the repair loss, in units of chance, beside the tasks' losses."""
    schedule: Literal["constant", "fall", "rise"] = "constant"
    """Of repair_weight over the run: fall to 0 or rise from 0, both as half a cosine."""
    num_evaluations: int = 10
    """Times the tasks are scored on validation images, evenly over the run; the best counts."""
    keep_best_per_task: bool = True
    """Keep the weights of each task's own best evaluation as well."""
    drop_path_ratio: float = 0.0
    """Stochastic depth: share of images that skip the deepest block; 0 suits small nets."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.recipes import build
        from vision_mtl.recipes.fit import make_trainer
        from vision_mtl.recipes.joint_training import report, split_batch, weight_schedule
        from vision_mtl.recipes.labels import open_labels
        from vision_mtl.recipes.repair import build_repair_objective, repair_feed, training_images
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
        from vision_mtl.training.joint import JointFeed, JointObjective
        from vision_mtl.training.repair import REPAIR, PretextObjective

        track, accelerator = config.track, config.runtime.accelerator(config.device)
        pool = build.open_pool(config, run)
        labelled = open_labels(config, run, pool, self.label_fraction)
        damaged, with_labels = split_batch(config.optim, self.repair_ratio)

        pretexts = build.build_pretexts(config)
        torch.manual_seed(config.seed)
        own = labelled.pool, list(labelled.tasks), labelled.train_rows
        model = build.build_task_model(config, *own, self.drop_path_ratio, pretexts)
        if config.start:
            load_fitting_weights(model, config.start)
        indices = training_images(config, pool)
        remember_images(run, pool, indices, config.init_from)
        repair = build_repair_objective(config, run, pool, pretexts, indices)
        repair = PretextObjective(
            repair.mixture, repair.chance_losses, weight_schedule(self.repair_weight, self.schedule)
        )
        damaged_feed = repair_feed(config, pool, indices, damaged, accelerator)
        workers = config.data.num_workers
        tasks_feed = build_feed(
            labelled, with_labels, accelerator, config.seed, temperature=self.temperature, num_workers=workers
        )
        objective = JointObjective({REPAIR: repair, "tasks": build_objective(labelled)})
        feed = JointFeed({REPAIR: damaged_feed, "tasks": tasks_feed})
        balancing = build_balancing(config.balance, model, labelled.tasks, [REPAIR])
        trainer = make_trainer(config, accelerator, model, objective, feed, balancing)
        validation = train_tasks(config, run, trainer, track, labelled, self.num_evaluations, self.keep_best_per_task)
        finish(run, validation)
        report(run, pool, labelled, trainer, validation, repair)

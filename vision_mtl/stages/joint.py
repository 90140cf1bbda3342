"""Semi-supervised training: task losses on labelled images, repair and consistency losses on others, in one step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

    After S4L: Zhai et al., 2019, https://arxiv.org/abs/1905.03670. With `consistency_weight`, confident predictions on
    unlabelled images train too: FixMatch, Sohn et al., 2020, https://arxiv.org/abs/2001.07685.
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
    """Share of a step's images that are damaged and repaired, in [0, 1). 0: none, which needs consistency_weight."""
    repair_weight: float = 1.0
    """Weight of the repair loss, which is in units of its chance loss, relative to the task losses; 0 or more."""
    schedule: Literal["constant", "fall", "rise"] = "constant"
    """Schedule of repair_weight over the run. constant: unchanged; fall: to 0, as half a cosine; rise: from 0, as half
    a cosine."""
    consistency_weight: float = 0.0
    """Weight of the consistency loss relative to the task losses, 0 or more: a confident prediction on a lightly
    augmented unlabelled image is the label of its strongly augmented copy (FixMatch). 0: off."""
    consistency_threshold: float = 0.95
    """Probability, in (0.5, 1), from which a prediction is confident enough to be a label."""
    consistency_ratio: float = 0.5
    """Share of a step's images, less the repaired ones, that are unlabelled images for consistency, in (0, 1). Each
    costs two passes: a weak and a strong copy."""
    consistency_images: dict[str, str | list[str]] = field(default_factory=dict)
    """Sources of the unlabelled images of a task, as TASK: SOURCE or TASK: [SOURCE, ...]; []: none, so no consistency.
    Tasks that are not named take the training images of their own source whose labels are not used."""
    num_evaluations: int = 10
    """Evaluations on validation images, evenly spaced over the run; the best weights are kept."""
    keep_best_per_task: bool = True
    """Keep the weights of each task's best evaluation too."""
    drop_path_ratio: float = 0.0
    """Stochastic depth: share of images that skip the deepest block, in [0, 1); 0 suits small networks."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.inference.restore import load_fitting_weights
        from vision_mtl.recipes import build
        from vision_mtl.recipes.consistency import (
            Consistency,
            ConsistencyReport,
            build_consistency_feed,
            build_consistency_objective,
            check_consistency,
            unlabelled_images,
            warn_about_unused_images,
        )
        from vision_mtl.recipes.fit import make_trainer
        from vision_mtl.recipes.initial_weights import before_training
        from vision_mtl.recipes.joint_training import split_batch, weight_schedule, write_joint_result
        from vision_mtl.recipes.labels import open_labels
        from vision_mtl.recipes.repair import build_repair_feed, build_repair_objective, training_images
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
        from vision_mtl.recipes.teacher import bind_teachers, teacher_runs
        from vision_mtl.training.consistency import CONSISTENCY
        from vision_mtl.training.joint import TASKS, JointFeed, JointObjective
        from vision_mtl.training.objective import Feed, Objective
        from vision_mtl.training.repair import REPAIR, PretextObjective

        accelerator = config.runtime.accelerator(config.device)
        check_consistency(self.consistency_weight, self.consistency_threshold, self.consistency_ratio)
        ratio = self.consistency_ratio if self.consistency_weight else 0.0
        optims = split_batch(config.optim, self.repair_ratio, ratio)
        if REPAIR not in optims:
            config = replace(config, pretexts={})
        pretexts = build.build_pretexts(config)
        pool = build.open_pool(config, run)
        labelled = open_labels(config, run, pool, self.label_fraction)
        consistency = None
        if CONSISTENCY in optims:
            found = unlabelled_images(config, run, labelled, self.consistency_images)
            consistency = Consistency(self.consistency_weight, self.consistency_threshold, found)
        elif self.consistency_images:
            run.warn("joint.consistency_images has no effect, because joint.consistency_weight is 0.")
        if REPAIR not in optims:
            warn_about_unused_images(config, run, self.consistency_images)

        torch.manual_seed(config.seed)
        model = build.build_task_model(config, labelled.pool, list(labelled.tasks), self.drop_path_ratio, pretexts, run)
        if config.start:
            load_fitting_weights(model, config.start)

        # the members of a step: objective and feed
        objectives: dict[str, Objective] = {}
        feeds: dict[str, Feed] = {}
        seen, repair, start = [labelled.train_indices], None, None
        if REPAIR in optims:
            start = before_training(model)
            indices = training_images(config, pool)
            pretexts = bind_teachers(config, run, pool, pretexts, accelerator.device)
            unweighted = build_repair_objective(config, run, pool, pretexts, indices)
            schedule = weight_schedule(self.repair_weight, self.schedule)
            repair = PretextObjective(unweighted.mixture, unweighted.chance_losses, schedule)
            objectives[REPAIR] = repair
            feeds[REPAIR] = build_repair_feed(config, pool, indices, optims[REPAIR], accelerator)
            seen.append(indices)
        workers = config.data.num_workers
        tasks = build_objective(labelled)
        objectives[TASKS] = tasks
        feeds[TASKS] = build_feed(
            labelled, optims[TASKS], accelerator, config.seed, temperature=self.temperature, num_workers=workers
        )
        if consistency is not None:
            objectives[CONSISTENCY] = build_consistency_objective(consistency, tasks, labelled)
            feeds[CONSISTENCY] = build_consistency_feed(
                consistency,
                labelled,
                optims[CONSISTENCY],
                accelerator,
                config.seed,
                temperature=self.temperature,
                num_workers=workers,
            )
            seen.append(consistency.indices)
        remember_images(run, pool, torch.cat(seen), config.init_from, *teacher_runs(pretexts))

        objective, feed = JointObjective(objectives), JointFeed(feeds)
        balancing = build_balancing(config.balance, model, labelled.tasks, [n for n in objectives if n != TASKS])
        trainer = make_trainer(config, accelerator, model, objective, feed, balancing)
        report = [] if consistency is None else [ConsistencyReport(trainer, labelled.pool, consistency)]
        validation = train_tasks(
            config, run, trainer, config.track, labelled, self.num_evaluations, self.keep_best_per_task, report
        )
        finish(run, validation)
        write_joint_result(config, run, pool, labelled, trainer, validation, repair, start, consistency)

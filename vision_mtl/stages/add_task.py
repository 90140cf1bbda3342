"""Add tasks to a trained model: train their heads, and measure what that does to the tasks it already had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("add_task")
@dataclass(frozen=True, kw_only=True)
class AddTask(Stage):
    """Restore a run's model, add a head for each new task, train, and score old and new tasks on test images.

    The old tasks are scored before and after training, on the same test images.
    """

    sections: ClassVar = ("data", "tasks", "backbone", "decoder", "optim", "balance", "runtime", "track", "score")
    inherits_images: ClassVar = True
    uses_unlabelled: ClassVar = False
    adds_tasks: ClassVar = True
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS

    trunk: Literal["frozen", "late", "trained"] = "frozen"
    """Layers of the backbone that are trained. frozen: none, so old predictions stay bit-identical; late: the last
    stage; trained: all."""
    rehearsal: bool = False
    """Train on the old tasks' labels too, against forgetting; needs a trunk that is not frozen."""
    label_fraction: float = 1.0
    """Share of each trained task's training and validation labels to use, in (0, 1], stratified by class."""
    temperature: float = 0.5
    """Exponent that gives a task its share of a batch from its number of images. 1: proportional; 0: equal shares."""
    num_evaluations: int = 10
    """Evaluations on validation images over the run; the best weights are kept."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.predictions import predict_split
        from vision_mtl.inference.restore import restore_model
        from vision_mtl.recipes import build
        from vision_mtl.recipes.added_task import check_old_tasks, freeze_shared, score_changes, score_old_tasks
        from vision_mtl.recipes.fit import make_trainer, write_result
        from vision_mtl.recipes.labels import open_labels
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
        from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_test_instances
        from vision_mtl.training.progress import phase
        from vision_mtl.training.supervised import task_head_specs

        if not config.init_from:
            raise UserError("add_task needs a trained model: give --init_from RUN, a run of finetune or joint.")
        accelerator = config.runtime.accelerator(config.device)
        model, state = restore_model(config.init_from)
        old = list(model.task_specs)
        new = [name for name in config.tasks if name not in old]
        if not new:
            has = f"{config.init_from} has heads for {', '.join(old) or 'no task'}"
            raise UserError(f"{has}, and no other task is given: add one with --tasks.NAME.source SOURCE.")
        if self.rehearsal and self.trunk == "frozen":
            raise UserError("add_task.rehearsal has no use on a frozen trunk: choose --add_task.trunk late or trained.")

        build.place(model, accelerator.device, config.runtime.layout(model.backbone))
        pool = build.open_pool(config, run)
        check_old_tasks(pool, state, old)
        with phase(run.speaker, "scoring the old tasks") as show:
            before = predict_split(model, pool, "test", old, accelerator.autocast, show=show)

        trained = [*new, *old] if self.rehearsal else new
        trained_config = replace(config, tasks={name: config.tasks[name] for name in trained})
        labelled = open_labels(trained_config, run, pool, self.label_fraction)
        remember_images(run, pool, labelled.train_indices, config.init_from)
        torch.manual_seed(config.seed)
        new_targets = {name: labelled.pool.targets[name] for name in new}
        for name, spec in task_head_specs(new_targets).items():
            model.add_task(name, spec)
        for name in trained:
            model.set_unit(name, *labelled.pool.targets[name].unit)
        freeze_shared(model, self.trunk, old)

        feed = build_feed(
            labelled,
            config.optim,
            accelerator,
            config.seed,
            temperature=self.temperature,
            num_workers=config.data.num_workers,
        )
        balancing = build_balancing(config.balance, model, labelled.tasks)
        trainer = make_trainer(config, accelerator, model, build_objective(labelled), feed, balancing)
        validation = train_tasks(config, run, trainer, config.track, labelled, self.num_evaluations, False)
        model = finish(run, validation)

        with phase(run.speaker, "scoring the test images") as show:
            predictions = predict_split(model, pool, "test", trained, accelerator.autocast, show=show)
            after = predict_split(model, pool, "test", old, accelerator.autocast, show=show)
            metrics = run_metrics(model, labelled, predictions, validation, trainer)
            kept = {name: found for name, found in after.items() if name not in predictions}  # not rehearsed
            metrics |= {"change": score_changes(pool, before, after), "old_tasks": score_old_tasks(model, pool, kept)}
        with phase(run.speaker, "drawing figures"):
            write_test_instances(run, model, labelled, predictions)
            write_figures(run, model, pool, predictions, metrics)
        write_result(run, trainer, metrics, pool.summary())

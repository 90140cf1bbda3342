"""A new task for an existing model: a head of its own, and what learning it does to the tasks that were there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import AFTER_TASKS, STAGES, TASK_RESULTS, Stage
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("add_task")
@dataclass(frozen=True, kw_only=True)
class AddTask(Stage):
    """Take over a run's model, add heads for the tasks that it lacks, train, measure old and new ones."""

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
    adds_tasks: ClassVar = True
    results: ClassVar = TASK_RESULTS
    next_commands: ClassVar = AFTER_TASKS

    trunk: Literal["frozen", "late", "trained"] = "frozen"
    """What of the backbone learns the new task: nothing, so that old answers stay as they are to the bit; its last
    stage; or all of it."""
    rehearsal: bool = False
    """Train on the old tasks' labels as well, so that they are not forgotten."""
    label_fraction: float = 1.0
    """Share of each trained task's labels that is used, stratified by class."""
    temperature: float = 0.5
    """A task's share of a batch is its number of images to this power: 1 by size, 0 all alike."""
    num_evaluations: int = 10
    """Times the trained tasks are scored on validation images; the best counts."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.predictions import predict_split
        from vision_mtl.inference.restore import restore_model
        from vision_mtl.recipes import build
        from vision_mtl.recipes.added_task import change, check_classes, freeze_shared
        from vision_mtl.recipes.fit import make_trainer, write_result
        from vision_mtl.recipes.labels import open_labels
        from vision_mtl.recipes.run_warnings import remember_images
        from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
        from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
        from vision_mtl.training.supervised import task_head_specs

        if not config.init_from:
            raise UserError("add_task needs a trained model: give --init_from RUN, a run of finetune or joint.")
        optim, track, runtime = config.optim, config.track, config.runtime
        accelerator = runtime.accelerator(config.device)
        model, state = restore_model(config.init_from)
        old, new = list(model.task_specs), [name for name in config.tasks if name not in model.task_specs]
        if not new:
            has = f"{config.init_from} has heads for {', '.join(old) or 'no task'}"
            raise UserError(f"{has}, and no other task is given: add one with --tasks.NAME.source SOURCE.")
        if self.rehearsal and self.trunk == "frozen":
            raise UserError("add_task.rehearsal has no use on a frozen trunk: choose --add_task.trunk late or trained.")
        model.to(accelerator.device, memory_format=runtime.layout(model.backbone))
        pool = build.open_pool(config, run)
        check_classes(pool, state, old)
        before = predict_split(model, pool, "test", old, accelerator.autocast)

        trained = [*new, *old] if self.rehearsal else new
        learnt = open_labels(
            replace(config, tasks={n: config.tasks[n] for n in trained}), run, pool, self.label_fraction
        )
        remember_images(run, pool, learnt.train_indices, config.init_from)
        torch.manual_seed(config.seed)
        for name, answer in task_head_specs({n: learnt.pool.targets[n] for n in new}, learnt.train_rows).items():
            model.add_task(name, answer)
        freeze_shared(model, self.trunk, old)
        feed = build_feed(
            learnt, optim, accelerator, config.seed, temperature=self.temperature, num_workers=config.data.num_workers
        )
        balancing = build_balancing(config.balance, model, learnt.tasks)
        trainer = make_trainer(config, accelerator, model, build_objective(learnt), feed, balancing)
        validation = train_tasks(config, run, trainer, track, learnt, self.num_evaluations, keep_best_per_task=False)
        model = finish(run, validation)
        found = predict_split(model, pool, "test", trained, accelerator.autocast)
        after = predict_split(model, pool, "test", old, accelerator.autocast)
        metrics = run_metrics(model, learnt, found, validation, trainer)
        metrics["change"] = change(pool, before, after)
        write_judged(run, learnt, found)
        write_figures(run, model, pool, found, metrics)
        write_result(run, trainer, metrics, pool.summary())

"""A new task for an existing model: a head of its own, and what learning it does to the tasks that were there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.predictions import TaskPredictions, instance_values, predict_split
from vision_mtl.evaluation.statistics import paired_difference
from vision_mtl.models.depth import freeze
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import make_trainer, write_result
from vision_mtl.recipes.labels import open_labels
from vision_mtl.recipes.run_warnings import remember_images
from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective, finish, train_tasks
from vision_mtl.recipes.task_outputs import run_metrics, write_figures, write_judged
from vision_mtl.recipes.tuned import tuned
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.runtime import Runtime
from vision_mtl.training.supervised import task_head_specs
from vision_mtl.training.tracking import Track

SECTIONS = ("data", "tasks", "backbone", "decoder", "optim", "balance", "runtime", "track")


@STAGES.register("add_task")
def add_task(
    config: RunConfig,
    run: Run,
    *,
    trunk: Literal["frozen", "late", "trained"] = "frozen",  # what of the backbone learns the new task: nothing, so
    # that old answers stay as they are to the bit; its last stage; or all of it
    rehearsal: bool = False,  # train on the old tasks' labels as well, so that they are not forgotten
    label_fraction: float = 1.0,  # share of each trained task's labels that is used, stratified by class
    temperature: float = 0.5,  # a task's share of a batch is its number of images to this power: 1 by size, 0 all alike
    num_evaluations: int = 10,  # times the trained tasks are scored on validation images; the best counts
) -> None:
    """Take over a run's model, add heads for the tasks that it lacks, train, measure old and new ones."""
    if not config.init_from:
        raise UserError("add_task needs a trained model: give --init_from RUN, a run of finetune or joint.")
    optim, track, runtime = Optim(**config.optim), Track(**config.track), Runtime(**config.runtime)
    accelerator = runtime.accelerator(config.device)
    model, state = build.restore_model(config.init_from)
    old, new = list(model.task_specs), [name for name in config.tasks if name not in model.task_specs]
    if not new:
        has = f"{config.init_from} has heads for {', '.join(old) or 'no task'}"
        raise UserError(f"{has}, and no other task is given: add one with --tasks.NAME.source SOURCE.")
    if rehearsal and trunk == "frozen":
        raise UserError("add_task.rehearsal has no use on a frozen trunk: choose --add_task.trunk late or trained.")
    model.to(accelerator.device, memory_format=runtime.layout(model.backbone))
    pool = build.open_pool(config, run)
    check_classes(pool, state, old)
    before = predict_split(model, pool, "test", old, accelerator.autocast)

    trained = [*new, *old] if rehearsal else new
    learnt = open_labels(replace(config, tasks={n: config.tasks[n] for n in trained}), run, pool, label_fraction)
    remember_images(run, pool, learnt.train_indices, config.init_from)
    torch.manual_seed(config.seed)
    for name, answer in task_head_specs({n: learnt.pool.targets[n] for n in new}, learnt.train_rows).items():
        model.add_task(name, answer)
    freeze_shared(model, trunk, old)
    feed = build_feed(
        learnt, optim, accelerator, config.seed, temperature=temperature, num_workers=config.data["num_workers"]
    )
    balancing = build_balancing(Balance(**config.balance), model, learnt.tasks)
    trainer = make_trainer(config, accelerator, model, build_objective(learnt), feed, balancing)
    trainer = tuned(config, run, trainer)
    validation = train_tasks(config, run, trainer, track, learnt, num_evaluations, keep_best_per_task=False)
    model = finish(run, validation)
    found = predict_split(model, pool, "test", trained, accelerator.autocast)
    after = predict_split(model, pool, "test", old, accelerator.autocast)
    metrics = run_metrics(model, learnt, found, validation, trainer)
    metrics["change"] = change(pool, before, after)
    write_judged(run, learnt, found)
    write_figures(run, model, pool, found, metrics)
    write_result(run, trainer, metrics, pool.summary())


def check_classes(pool: Pool, state: Mapping[str, Any], old: list[str]) -> None:
    """Raise `UserError` if an old task's images are not there, or show other classes than its head answers."""
    for name in old:
        if name not in pool.targets:
            raise UserError(f"the old task {name!r} has no images here, so what happens to it cannot be measured.")
        found, known = pool.targets[name].class_names, state["class_names"].get(name, [])
        if found != known:
            raise UserError(f"task {name!r} was trained on classes {known}, but its images now show {found}.")


def freeze_shared(model: SharedModel, trunk: str, old: list[str]) -> None:
    """Stop training what the new task must not change; a decoder that no old task reads is free."""
    build.freeze_backbone(model, {"frozen": "all", "late": "early", "trained": "none"}[trunk])
    if trunk == "frozen" and any(model.task_specs[name].is_dense for name in old):
        model.frozen += freeze(model.decoder)


def change(
    pool: Pool, before: Mapping[str, TaskPredictions], after: Mapping[str, TaskPredictions]
) -> dict[str, dict[str, Any]]:
    """Old task -> its score now minus its score before, on the same test images; exactly 0 on a frozen trunk."""
    return {
        name: paired_difference(
            instance_values(after[name]), instance_values(found), pool.cluster[found.indices.numpy()]
        ).to_json()
        for name, found in before.items()
    }

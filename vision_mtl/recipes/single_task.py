"""Single-task networks for comparison: what a task gains or loses by sharing its backbone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision_mtl.core.run import Run
from vision_mtl.core.text import file_stem
from vision_mtl.evaluation.predictions import TaskPredictions, instance_values, predict_split
from vision_mtl.evaluation.statistics import paired_difference
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.supervised import TaskTrainer, Validation, score_predictions
from vision_mtl.training.checkpoint import read_state, read_tensors, save_weights
from vision_mtl.training.options import Optim
from vision_mtl.training.supervised import TaskFeed

Budget = Literal["none", "same_images", "same_steps"]
BuildTrainer = Callable[[LabelledTasks, Optim], TaskTrainer]
Train = Callable[[Run, TaskTrainer, LabelledTasks], Validation]  # trains to the end in the run's folder, or resumes


def measure_transfer(
    run: Run,
    labelled: LabelledTasks,
    shared: Mapping[str, TaskPredictions],
    trainer: TaskTrainer,
    build_trainer: BuildTrainer,
    train: Train,
    budget: Budget,
) -> dict[str, Any]:
    """Return `transfer`, the shared network's score minus the single-task network's, and `single`, the latter's scores.

    Both map a task to scores on the same test images. A single-task network starts from the same weights, is chosen on
    validation images in the same way, and sees as many labelled images of the task as the shared one (`same_images`),
    or takes as many steps (`same_steps`). Its training resumes as the shared network's does.
    """
    found: dict[str, Any] = {"transfer": {}, "single": {}}
    for name, together in shared.items():
        scores, values, steps = _single_task_scores(run, labelled, name, trainer, build_trainer, train, budget)
        clusters = labelled.pool.cluster[together.indices.numpy()]
        found["transfer"][name] = paired_difference(instance_values(together), values, clusters).to_json()
        found["single"][name] = {**scores, "steps": steps}
    return found


def single_task_steps(trainer: TaskTrainer, name: str, budget: Budget) -> int:
    """Return the steps of a task's single-task network, whose batches contain that task only."""
    steps, feed = trainer.progress.step, trainer.feed
    if budget == "same_steps":
        return steps
    assert isinstance(feed, TaskFeed)
    return max(1, round(steps * feed.share(name)))


def _single_task_scores(
    run: Run,
    labelled: LabelledTasks,
    name: str,
    trainer: TaskTrainer,
    build_trainer: BuildTrainer,
    train: Train,
    budget: Budget,
) -> tuple[dict[str, Any], np.ndarray, int]:
    """Return the scores, the test images' values (n,) and the steps of a single-task network.

    It is trained once: its weights are kept in `single/NAME.safetensors`.
    """
    kept = run.folder / "single" / f"{file_stem(name)}.safetensors"
    steps = single_task_steps(trainer, name, budget)
    task = labelled.subset([name])
    own_trainer = build_trainer(task, replace(trainer.optim, steps=steps, max_seconds=None))
    if not kept.is_file() or read_state(kept)["steps"] != steps:  # fewer before the run was extended
        run.say(f"training {name} alone for {steps} steps")
        _train_alone(run, own_trainer, task, train)
        if run.is_main:
            save_weights(kept, {"task": name, "steps": steps}, own_trainer.scored_model.state_dict())
            shutil.rmtree(_training_folder(run, name))
    else:
        own_trainer.strategy.gather()
        own_trainer.scored_model.load_state_dict(read_tensors(kept, "model"))
        own_trainer.feed.close()
    model = own_trainer.scored_model
    found = predict_split(model, labelled.pool, "test", [name], trainer.accelerator.autocast)
    return score_predictions(model, labelled.pool, found)[name], instance_values(found[name]), steps


def _training_folder(run: Run, name: str) -> Path:
    """Return the folder of the checkpoints of task `name`'s network, deleted once it is trained."""
    return run.folder / "single" / file_stem(name)


def _train_alone(run: Run, trainer: TaskTrainer, task: LabelledTasks, train: Train) -> None:
    """Train, or resume a run of as many steps, and load the best weights on validation images into the model."""
    (name,) = task.tasks
    folder = _training_folder(run, name) / f"{trainer.optim.steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    task_run = run.part(folder)
    task_run.warnings += run.warnings  # so that none is repeated
    best = train(task_run, trainer, task).best
    if best.scores:  # in the main process
        best.load(trainer.scored_model)
    run.warnings += [f"{name} alone: {text}" for text in task_run.warnings if text not in run.warnings]
    for record in task_run.resumes():
        run.log({**record, "network": name})

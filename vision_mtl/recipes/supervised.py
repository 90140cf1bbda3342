"""Steps of the stages that train tasks: feed, objective, balancing, training with validation, final scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.evaluation.calibration import fit_temperature
from vision_mtl.evaluation.predictions import TaskPredictions, goodness, predict_split, task_scores
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import Action, fit, resume
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.repair import images_per_process
from vision_mtl.recipes.run_warnings import (
    choosing_tasks,
    rank_action,
    warn_about_small_tasks,
    warn_about_starved_tasks,
)
from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import Balancing, LossTerm
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.balancing.shared import other_parameters, shared_parameters
from vision_mtl.training.best import ALL, Best
from vision_mtl.training.joint import TASKS, JointFeed
from vision_mtl.training.loop import Trainer
from vision_mtl.training.mixing import Mixing
from vision_mtl.training.objective import Feed
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.progress import phase
from vision_mtl.training.step_record import Progress
from vision_mtl.training.supervised import TaskFeed, TaskObjective, task_losses
from vision_mtl.training.tracking import Tracker

TaskTrainer = Trainer[Any]  # of `TaskObjective` or `JointObjective`


def build_feed(
    labelled: LabelledTasks,
    optim: Optim,
    accelerator: Accelerator,
    seed: int,
    *,
    temperature: float,
    mixing: Mixing | None = None,
    num_workers: int = 0,
) -> TaskFeed:
    """Return this process's augmented batches, which mix the tasks."""
    batches = TaskBatches(
        labelled.train,
        images_per_process(optim, accelerator.num_processes),
        seed,
        temperature=temperature,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    pin = accelerator.device.type == "cuda"
    loader = TaskLoader(labelled.pool, labelled.tasks, batches, seed, num_workers, pin)
    mixes = mixing is not None and (mixing.mixup_alpha or mixing.cutmix_alpha)
    return TaskFeed(loader, accelerator.device, mixing if mixes else None)


def task_feed(feed: Feed) -> TaskFeed:
    """Return the feed of tasks, which a joint feed contains; raise `TypeError` for a feed without one."""
    found = feed.members[TASKS] if isinstance(feed, JointFeed) else feed
    if not isinstance(found, TaskFeed):
        raise TypeError(f"a feed of tasks is needed; found {type(found).__name__}.")
    return found


def build_objective(labelled: LabelledTasks) -> TaskObjective:
    """Return the tasks' losses; class weights and units come from the labels to train on."""
    targets = {name: labelled.pool.targets[name] for name in labelled.tasks}
    return TaskObjective(task_losses(labelled.tasks, targets, labelled.train_rows))


def build_balancing(
    options: Balance, model: SharedModel, tasks: Mapping[str, Task], others: Sequence[str] = ()
) -> Balancing:
    """Return the balancing of the tasks' losses and of the losses `others`, which have weight 1."""
    # no term is marked as regression: that loss is half the squared error, so it has the half of Kendall's eq. 7
    terms = [LossTerm(name=name, weight=task.weight) for name, task in tasks.items()]
    terms += [LossTerm(name=name) for name in others]
    shared = shared_parameters(model.backbone, options.shared)
    rest = other_parameters(model, shared)
    return make_balancing(options.name, terms, shared, rest, options.kwargs, options.conflicts_every_steps)


@dataclass
class Validation:
    """An action that scores the tasks on validation images, logs the scores and keeps the best weights.

    Only the sets of weights `choosing` have enough validation images to be chosen by them.
    """

    trainer: TaskTrainer
    labelled: LabelledTasks
    best: Best
    description: dict[str, Any]
    memory: dict[str, Any]
    choosing: Sequence[str]
    most_images: int = 0  # of each task at an evaluation; 0: all

    def __call__(self, progress: Progress, tracker: Tracker) -> None:
        """Score the tasks, log the scores, keep the weights if they are the best."""
        tracker.show("scoring the validation images")
        scores = self.scores()
        if not scores:
            return
        better = self.best.offer(self.trainer.scored_model, progress.step, scores, self.choosing)
        self.memory["best"] = self.best.scores
        if better:
            self.best.flush(self.description)
        when = {"step": progress.step, "images_seen": progress.images_seen}
        tracker.run.log({"kind": "validation", **when, "tasks": scores})
        tracker.scalars(progress.step, {f"validation/{task}": score for task, score in scores.items()})

    def epochs(self) -> dict[str, float]:
        """Return how often each task's labelled images have been seen on average, drawn for this or another task."""
        feed = task_feed(self.trainer.feed)
        seen = self.trainer.progress.step * feed.images_per_step
        return {task: seen * feed.share(task) / len(rows) for task, rows in self.labelled.train.items()}

    def scores(self) -> dict[str, float]:
        """Return each task's score on validation images, as `evaluation.predictions.goodness` measures it."""
        model, autocast = self.trainer.scored_model, self.trainer.accelerator.autocast
        found = predict_split(model, self.labelled.pool, "val", list(self.labelled.tasks), autocast, self.most_images)
        return {task: goodness(predictions) for task, predictions in found.items()}


def finish(run: Run, validation: Validation) -> SharedModel:
    """Load the best weights over all tasks, calibrate them, save them, and return the model to score.

    Without validation images, the last weights are kept, with a warning.
    """
    trainer, best = validation.trainer, validation.best
    model = trainer.scored_model
    if ALL in best.scores:
        best.load(model)
    else:
        run.warn("no task has a validation image: the last weights are kept, and probabilities are not calibrated.")
    with phase(run.speaker, "calibrating on the validation images") as show:
        calibrate(model, validation.labelled.pool, list(validation.labelled.tasks), trainer, show)
    step = int(best.scores.get(ALL, {"step": trainer.progress.step})["step"])
    best.replace(model, step)
    if trainer.accelerator.is_main_process:
        best.flush(validation.description)
        best.commit()
    return model


def calibrate(
    model: SharedModel,
    pool: Pool,
    tasks: Sequence[str],
    trainer: TaskTrainer,
    show: Callable[[float, str], None] = lambda share, text: None,
) -> None:
    """Fit each classifier's temperature on validation images; `show` receives the share done and the task."""
    for task, found in predict_split(model, pool, "val", tasks, trainer.accelerator.autocast, show=show).items():
        if found.kind.classifies_images:
            temperature = model.task_head(task).temperature
            assert isinstance(temperature, Tensor)
            temperature.fill_(fit_temperature(found.kind, found.outputs, found.target.gather(found.indices)))


def score_predictions(
    model: SharedModel, pool: Pool, found: Mapping[str, TaskPredictions]
) -> dict[str, dict[str, Any]]:
    """Return task -> metric -> score, as `result.json` has it."""
    return {
        task: {
            metric: score.to_json()
            for metric, score in task_scores(
                predictions,
                predictions.probabilities(model, task),
                pool.cluster[predictions.indices.numpy()],
            ).items()
        }
        for task, predictions in found.items()
    }


def train_tasks(
    config: RunConfig,
    run: Run,
    trainer: TaskTrainer,
    track: Track,
    labelled: LabelledTasks,
    num_evaluations: int,
    keep_best_per_task: bool,
    at_evaluations: Sequence[Callable[[Progress, Tracker], None]] = (),
) -> Validation:
    """Train to the end, from a checkpoint if there is one; return the validation, which has the best weights.

    `at_evaluations` are called after each validation.
    """
    description = build.describe_model(config, trainer.model, labelled.pool, run.about.get("teacher"))
    choosing = choosing_tasks(labelled.pool, list(labelled.tasks))
    warn_about_small_tasks(run, labelled.pool, task_feed(trainer.feed), list(labelled.tasks), choosing)
    memory: dict[str, Any] = {"best": {}}
    best = Best(run.checkpoints, keep_best_per_task)
    most_images = config.score.validation_images
    validation = Validation(trainer, labelled, best, description, memory, choosing, most_images)
    resume(trainer, run, memory, config)
    if best.restore(memory["best"], run.is_main):
        run.warn("the best weights were lost with a checkpoint; they are chosen again from here on.")
    memory["best"] = best.scores
    try:
        actions: list[Action] = [(num_evaluations, validation), *((num_evaluations, more) for more in at_evaluations)]
        actions.append((1, rank_action(trainer, labelled.pool)))
        fit(run, trainer, track, description, memory, actions, best.commit)
    finally:
        trainer.feed.close()
    warn_about_starved_tasks(run, validation.epochs())
    return validation

"""What the stages with labels share: labelled images, a trainer for several tasks, validation, and the final scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

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
from vision_mtl.recipes.fit import fit, resume
from vision_mtl.recipes.labels import Labelled
from vision_mtl.recipes.repair import share_of_batch
from vision_mtl.recipes.run_warnings import rank_action, warn_of_few, warn_of_starved
from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import Balancing, LossTerm
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.balancing.shared import other_parameters, shared_parameters
from vision_mtl.training.best import ALL, Best
from vision_mtl.training.joint import JointFeed
from vision_mtl.training.loop import Trainer
from vision_mtl.training.mixing import Mixing
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.step_record import Progress
from vision_mtl.training.supervised import TaskFeed, TaskObjective, task_losses
from vision_mtl.training.tracking import Tracker


def build_feed(
    labelled: Labelled,
    optim: Optim,
    accelerator: Accelerator,
    seed: int,
    *,
    temperature: float,
    mixing: Mixing | None = None,
    num_workers: int = 0,
) -> TaskFeed:
    """Augmented batches that mix the tasks."""
    share = share_of_batch(optim, accelerator.num_processes)
    place = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    batches = TaskBatches(labelled.train, share, seed, temperature=temperature, **place)
    pin = accelerator.device.type == "cuda"
    loader = TaskLoader(labelled.pool, labelled.tasks, batches, seed, num_workers, pin)
    on = mixing is not None and (mixing.mixup_alpha or mixing.cutmix_alpha)
    return TaskFeed(loader, accelerator.device, mixing if on else None)


def build_objective(labelled: Labelled) -> TaskObjective:
    """The tasks' losses; class weights and units come from the labels that are trained on."""
    targets = {name: labelled.pool.targets[name] for name in labelled.tasks}
    return TaskObjective(task_losses(labelled.tasks, targets, labelled.train_rows))


def build_balancing(
    options: Balance, model: SharedModel, tasks: Mapping[str, Task], others: Sequence[str] = ()
) -> Balancing:
    """What makes one gradient of the tasks' losses, and of `others` without a weight of their own."""
    # none is called a regression: a task's is half the squared error, which holds the half of Kendall's eq. 7 already
    objectives = [LossTerm(name=name, weight=task.weight) for name, task in tasks.items()]
    objectives += [LossTerm(name=name) for name in others]
    shared = shared_parameters(model.backbone, options.shared)
    rest = other_parameters(model, shared)
    return make_balancing(options.name, objectives, shared, rest, options.kwargs, options.conflicts_every_steps)


@dataclass
class Validation:
    """Scores the tasks on validation images now and then, and keeps the best weights."""

    trainer: Trainer
    labelled: Labelled
    best: Best
    description: dict[str, Any]
    memory: dict[str, Any]

    def __call__(self, progress: Progress, tracker: Tracker) -> None:
        """Score, log, keep."""
        scores = self.scores()
        if not scores:
            return
        better = self.best.offer(self.trainer.scored_model, progress.step, scores)
        self.memory["best"] = self.best.scores
        if better:
            self.best.flush(self.description)
        tracker.run.log({"kind": "validation", "step": progress.step, "tasks": scores})
        tracker.scalars(progress.step, {f"validation/{task}": score for task, score in scores.items()})

    def epochs(self) -> dict[str, float]:
        """Task -> how often its labelled images have been seen, on average, drawn for it or for another task."""
        feed = self.trainer.feed
        feed = feed.members["tasks"] if isinstance(feed, JointFeed) else feed
        seen = self.trainer.progress.step * feed.images_per_step
        return {task: seen * feed.share(task) / len(rows) for task, rows in self.labelled.train.items()}

    def scores(self) -> dict[str, float]:
        """Task -> how good its answers are on validation images, by `evaluation.predictions.goodness`."""
        model, autocast = self.trainer.scored_model, self.trainer.accelerator.autocast
        found = predict_split(model, self.labelled.pool, "val", list(self.labelled.tasks), autocast)
        return {task: goodness(predictions) for task, predictions in found.items()}


def finish(run: Run, validation: Validation) -> SharedModel:
    """The network that the run is judged by: the best weights of all tasks together, calibrated, kept in its file."""
    trainer, best = validation.trainer, validation.best
    model = trainer.scored_model
    if ALL in best.scores:
        best.load(model)
    else:
        run.warn("no task has a validation image: the last weights are kept, and probabilities are not calibrated.")
    calibrate(model, validation.labelled.pool, list(validation.labelled.tasks), trainer)
    step = int(best.scores.get(ALL, {"step": trainer.progress.step})["step"])
    best.replace(model, step)
    if trainer.accelerator.is_main_process:
        best.flush(validation.description)
        best.commit()
    return model


def calibrate(model: SharedModel, pool: Pool, tasks: Sequence[str], trainer: Trainer) -> None:
    """Fit each classifier's temperature on validation images."""
    for task, found in predict_split(model, pool, "val", tasks, trainer.accelerator.autocast).items():
        if found.kind.classifies_images:
            temperature = fit_temperature(found.kind, found.outputs, found.target.gather(found.indices))
            model.task_head(task).temperature.fill_(temperature)


def scores_of(model: SharedModel, pool: Pool, found: Mapping[str, TaskPredictions]) -> dict[str, dict[str, Any]]:
    """Task -> metric -> score, in the form of `result.json`."""
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
    trainer: Trainer,
    track: Track,
    labelled: Labelled,
    num_evaluations: int,
    keep_best_per_task: bool,
) -> Validation:
    """Fit the trainer, going on from a checkpoint if there is one; returns its validation, which holds the best."""
    description = build.describe_model(config, trainer.model, labelled.pool)
    warn_of_few(run, labelled.pool, trainer.feed, list(labelled.tasks))
    memory: dict[str, Any] = {"best": {}}
    best = Best(run.checkpoints, keep_best_per_task)
    validation = Validation(trainer, labelled, best, description, memory)
    resume(trainer, run, memory, config)
    if best.restore(memory["best"], run.is_main):
        run.warn("weights of the best evaluation were lost with a checkpoint; the best is chosen anew from here on.")
    memory["best"] = best.scores
    try:
        actions = [(num_evaluations, validation), (1, rank_action(trainer, labelled.pool))]
        fit(run, trainer, track, description, memory, actions, best.commit)
    finally:
        trainer.feed.close()
    warn_of_starved(run, validation.epochs())
    return validation

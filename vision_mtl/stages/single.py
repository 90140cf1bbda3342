"""Single-task networks beside the shared one: what a task gains or loses by sharing its backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from vision_mtl.core.run import Run
from vision_mtl.evaluation.predictions import TaskPredictions, goodness, instance_values, predict_split
from vision_mtl.evaluation.statistics import paired_difference
from vision_mtl.stages.supervised import Labelled, scores_of
from vision_mtl.training.best import Best
from vision_mtl.training.checkpoint import read_state, read_tensors, save_weights
from vision_mtl.training.loop import Progress, StepRecord, Trainer
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.progress import ProgressLine
from vision_mtl.training.supervised import TaskFeed
from vision_mtl.training.tracking import Milestones

Budget = Literal["none", "same_images", "same_steps"]


def transfer(
    run: Run,
    labelled: Labelled,
    shared: Mapping[str, TaskPredictions],
    trainer: Trainer,
    trainer_of: Callable[[Labelled, Optim], Trainer],
    budget: Budget,
    num_evaluations: int,
) -> dict[str, Any]:
    """`transfer`, the shared network's score minus the task's own network's on the same test images, and `single`.

    A task's own network starts from the same weights, is chosen on validation in the same way, and gets as many
    labelled images of the task as the shared one saw (`same_images`), or as many steps (`same_steps`). In
    `result.json` both are scores by task.
    """
    found: dict[str, Any] = {"transfer": {}, "single": {}}
    for name, together in shared.items():
        scores, values, steps = _alone(run, labelled, name, trainer, trainer_of, budget, num_evaluations)
        clusters = labelled.pool.cluster[together.indices.numpy()]
        found["transfer"][name] = paired_difference(instance_values(together), values, clusters).to_json()
        found["single"][name] = {**scores, "steps": steps}
    return found


def steps_alone(trainer: Trainer, name: str, budget: Budget) -> int:
    """Steps of a task's own network, whose batches hold that task alone."""
    steps, feed = trainer.progress.step, trainer.feed
    if budget == "same_steps":
        return steps
    assert isinstance(feed, TaskFeed)
    return max(1, round(steps * feed.share(name)))


def _alone(
    run: Run,
    labelled: Labelled,
    name: str,
    trainer: Trainer,
    trainer_of: Callable[[Labelled, Optim], Trainer],
    budget: Budget,
    num_evaluations: int,
) -> tuple[dict[str, Any], np.ndarray, int]:
    """(scores, (n,) values of the test images, steps) of the task's own network, which is kept and trained once."""
    kept = run.folder / "single" / f"{name}.safetensors"
    steps = steps_alone(trainer, name, budget)
    own = labelled.of([name])
    alone = trainer_of(own, replace(trainer.optim, steps=steps, max_seconds=None))
    if not kept.is_file() or read_state(kept)["steps"] != steps:  # other ones before the run was extended
        run.say(f"training {name} alone for {steps} steps")
        best = _fit(run, alone, own, num_evaluations)
        if best.scores:
            best.load(alone.scored_model)
        if run.is_main:
            save_weights(kept, {"task": name, "steps": steps}, alone.scored_model.state_dict())
    else:
        alone.scored_model.load_state_dict(read_tensors(kept, "model"))
    alone.feed.close()
    found = predict_split(alone.scored_model, labelled.pool, "test", [name], trainer.accelerator.autocast)
    return scores_of(alone.scored_model, labelled.pool, found)[name], instance_values(found[name]), steps


def _fit(run: Run, alone: Trainer, own: Labelled, num_evaluations: int) -> Best:
    """Train, keeping the best weights on validation images in memory."""
    best, line, (name,) = Best(run.checkpoints, per_task=False), ProgressLine(run.speaker), own.tasks

    def evaluate(progress: Progress) -> None:
        found = predict_split(alone.scored_model, own.pool, "val", [name], alone.accelerator.autocast)
        if found:
            best.offer(alone.scored_model, progress.step, {name: goodness(found[name])})

    milestones = Milestones(num_evaluations, evaluate)

    def hook(progress: Progress, record: StepRecord) -> None:
        share = alone.optim.progress(progress.step, progress.seconds)
        line.update(share, f"{name} alone  step {progress.step}  loss {record.loss:.3f}")
        milestones.reach(share, progress)

    alone.fit(hook)
    line.close()
    return best

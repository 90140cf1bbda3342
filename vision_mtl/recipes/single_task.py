"""Single-task networks beside the shared one: what a task gains or loses by sharing its backbone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision_mtl.core.run import Run
from vision_mtl.evaluation.predictions import TaskPredictions, instance_values, predict_split
from vision_mtl.evaluation.statistics import paired_difference
from vision_mtl.recipes.labels import Labelled
from vision_mtl.recipes.supervised import Validation, scores_of
from vision_mtl.training.checkpoint import read_state, read_tensors, save_weights
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.supervised import TaskFeed

Budget = Literal["none", "same_images", "same_steps"]
Train = Callable[[Run, Trainer, Labelled], Validation]  # fits to the end in a folder of its own, or goes on there


def transfer(
    run: Run,
    labelled: Labelled,
    shared: Mapping[str, TaskPredictions],
    trainer: Trainer,
    trainer_of: Callable[[Labelled, Optim], Trainer],
    train: Train,
    budget: Budget,
) -> dict[str, Any]:
    """`transfer`, the shared network's score minus the task's own network's on the same test images, and `single`.

    A task's own network starts from the same weights, is chosen on validation in the same way, and gets as many
    labelled images of the task as the shared one saw (`same_images`), or as many steps (`same_steps`). Training it goes
    on where it stopped as the shared one's does. In `result.json` both are scores by task.
    """
    found: dict[str, Any] = {"transfer": {}, "single": {}}
    for name, together in shared.items():
        scores, values, steps = _alone(run, labelled, name, trainer, trainer_of, train, budget)
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
    train: Train,
    budget: Budget,
) -> tuple[dict[str, Any], np.ndarray, int]:
    """(scores, (n,) values of the test images, steps) of the task's own network, which is kept and trained once."""
    kept = run.folder / "single" / f"{name}.safetensors"
    steps = steps_alone(trainer, name, budget)
    own = labelled.of([name])
    alone = trainer_of(own, replace(trainer.optim, steps=steps, max_seconds=None))
    if not kept.is_file() or read_state(kept)["steps"] != steps:  # other ones before the run was extended
        run.say(f"training {name} alone for {steps} steps")
        _fit(run, alone, own, train)
        if run.is_main:
            save_weights(kept, {"task": name, "steps": steps}, alone.scored_model.state_dict())
            shutil.rmtree(_workplace(run, name))
    else:
        alone.gather()
        alone.scored_model.load_state_dict(read_tensors(kept, "model"))
        alone.feed.close()
    found = predict_split(alone.scored_model, labelled.pool, "test", [name], trainer.accelerator.autocast)
    return scores_of(alone.scored_model, labelled.pool, found)[name], instance_values(found[name]), steps


def _workplace(run: Run, name: str) -> Path:
    """Where the network of task `name` has its checkpoints until it is done."""
    return run.folder / "single" / name


def _fit(run: Run, alone: Trainer, own: Labelled, train: Train) -> None:
    """Train, or go on from a checkpoint of as many steps; leaves the best weights on validation images in the model."""
    (name,) = own.tasks
    folder = _workplace(run, name) / f"{alone.optim.steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    part = run.part(folder)
    part.warnings += run.warnings  # so that none is said twice
    best = train(part, alone, own).best
    if best.scores:  # of several processes the first alone
        best.load(alone.scored_model)
    run.warnings += [f"{name} alone: {text}" for text in part.warnings if text not in run.warnings]
    for record in part.resumes():
        run.log({**record, "network": name})

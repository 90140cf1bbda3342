"""Training inside a run: going on from a checkpoint, what is recorded on the way, and what happens when it breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.training.checkpoint import load_optimiser, newest_checkpoint, read_state, read_tensors, save_checkpoint
from vision_mtl.training.loop import NonFiniteLoss, Progress, Trainer
from vision_mtl.training.tracking import Milestones, Track, Tracker

Action = tuple[int, Callable[[Progress, Tracker], None]]  # how often over the run, and what


def resume(trainer: Trainer, run: Run, memory: dict[str, Any]) -> None:
    """Go on from the run's newest checkpoint, if it has one; `memory` gets the values saved under its keys."""
    path = newest_checkpoint(run.checkpoints)
    if path is None:
        run.rewind(0)
        return
    state = read_state(path)
    trainer.model.load_state_dict(read_tensors(path, "model"))
    if trainer.average is not None:
        trainer.average.module.load_state_dict(read_tensors(path, "average"))
    if trainer.balancing is not None:
        trainer.balancing.load_state_dict(read_tensors(path, "balancing"))
    load_optimiser(trainer.optimiser, read_tensors(path, "optimiser"))
    memory.update({key: state[key] for key in memory})
    trainer.progress = Progress(**state["progress"])
    run.rewind(trainer.progress.step)
    run.say(f"resumed from {path.name}, step {trainer.progress.step}")


def fit(
    run: Run,
    trainer: Trainer,
    track: Track,
    description: dict[str, Any],
    memory: dict[str, Any],
    actions: Sequence[Action],
) -> None:
    """Train to the end with records, checkpoints and `actions`; a checkpoint holds `description` and `memory`.

    An interrupted run is saved where it stands. Raises `UserError` if the loss is not a number, its batch kept.
    """
    main = trainer.accelerator.is_main_process

    def save() -> None:
        if main:
            own = {"step": trainer.progress.step, "progress": vars(trainer.progress)}
            average = None if trainer.average is None else trainer.average.module
            save_checkpoint(
                run.checkpoints,
                {**description, **memory, **own},
                trainer.model,
                trainer.optimiser,
                average,
                trainer.balancing,
                keep=track.keep_checkpoints,
            )

    milestones = [Milestones(count, lambda p, act=act: act(p, tracker)) for count, act in actions] if main else []
    tracker = Tracker(run, track, trainer.optim, trainer.progress, save, milestones, main)
    try:
        trainer.fit(tracker)
    except KeyboardInterrupt:
        save()
        raise
    except NonFiniteLoss as error:
        where = run.folder / "failed_batch.pt"
        torch.save({"step": error.step, **error.evidence}, where)
        raise UserError(f"{error} Its images are kept in {where}.") from error
    finally:
        tracker.close()
    save()


def write_result(run: Run, trainer: Trainer, metrics: dict[str, Any], data: dict[str, Any]) -> None:
    """The result of a stage that trained."""
    progress = trainer.progress
    run.write_result(
        "completed",
        metrics=metrics,
        data=data,
        seconds=progress.seconds,
        images_seen=progress.images_seen,
        images_per_second=progress.images_seen / max(progress.seconds, 1e-9),
    )

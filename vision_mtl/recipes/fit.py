"""Training inside a run: going on from a checkpoint, what is recorded on the way, and what happens when it breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from traceback import clear_frames
from typing import Any

from accelerate import Accelerator
from safetensors.torch import save as safetensors

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes, remove_leftovers
from vision_mtl.core.interruptions import Interruptions
from vision_mtl.core.memory import hand_back_freed_memory, is_out_of_memory, out_of_memory
from vision_mtl.core.run import Run
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.checkpoint import (
    load_optimiser,
    newest_checkpoint,
    read_state,
    read_tensors,
    save_checkpoint,
    set_aside,
)
from vision_mtl.training.diagnosis import LossWatch, what_fits
from vision_mtl.training.dtensors import load_weights
from vision_mtl.training.loop import NonFiniteLoss, Progress, Trainer
from vision_mtl.training.objective import Feed, Objective
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.process_sync import StepRecord
from vision_mtl.training.tracking import Milestones, Tracker

Action = tuple[int, Callable[[Progress, Tracker], None]]  # how often over the run, and what
LOSSES = "losses"  # in a checkpoint: the steps' losses since the last line of metrics.jsonl
WATCH = "watch"  # in a checkpoint: the early losses that later ones are held against


def make_trainer(
    config: RunConfig,
    accelerator: Accelerator,
    model: SharedModel,
    objective: Objective,
    feed: Feed,
    balancing: Balancing | None = None,
    optim: Optim | None = None,
) -> Trainer:
    """What fits `model` as the config says; `optim` stands for its own where a part of the run has another budget."""
    runtime, optim = config.runtime, optim or config.optim
    layout = runtime.layout(model.backbone)
    parts = model, objective, feed, optim, accelerator, layout, config.seed
    return Trainer(*parts, compiled=runtime.compile, balancing=balancing, shard=runtime.shard)


def resume(trainer: Trainer, run: Run, memory: dict[str, Any], config: RunConfig | None = None) -> None:
    """Go on from the run's newest whole checkpoint, if it has one; `memory` gets the values saved under its keys.

    Says which of the two happened: going on with this run, or a new one, and with which weights.
    """
    path = newest_checkpoint(run.checkpoints, lambda damaged, why: _pass_over(run, damaged, why))
    if run.is_main:
        remove_leftovers(run.checkpoints)
    if trainer.shard and trainer.sharding is None:
        run.say(
            "runtime.shard changes nothing in one process: start several by torchrun --nproc_per_node N train.py ..."
        )
    memory |= {LOSSES: {}, WATCH: {}}
    if path is None:
        _begin(run, config and config.start)
        return
    state = read_state(path)
    load_weights(trainer.model, read_tensors(path, "model"))
    if trainer.average is not None:
        trainer.average.module.load_state_dict(read_tensors(path, "average"))
    if trainer.balancing is not None:
        trainer.balancing.load_state_dict(read_tensors(path, "balancing"))
    load_optimiser(trainer.optimiser, read_tensors(path, "optimiser"))
    memory.update({key: state.get(key, memory[key]) for key in memory})
    trainer.progress = Progress(**state["progress"])
    run.warnings += [text for text in state.get("warnings", []) if text not in run.warnings]
    _go_on(run, path, trainer.progress.step, config and config.init_from)


def _pass_over(run: Run, damaged: Path, why: str) -> None:
    run.warn(f"checkpoint {damaged.name} is passed over: {why}")
    if run.is_main:
        set_aside(damaged)


def _begin(run: Run, start: Path | None) -> None:
    """A run without a checkpoint: a new one, or one that was killed before its first."""
    run.rewind(0)
    if run.is_main and run.reached.step:
        run.say(f"begun again, not resumed: there is no checkpoint yet; {run.reached.go_on(0)} steps are repeated.")
    if start:
        run.say(f"initialised from {start}: a new run, at step 0")


def _go_on(run: Run, path: Path, step: int, init_from: str | None) -> None:
    run.rewind(step)
    repeated = 0 if run.extends or not run.is_main else run.reached.go_on(step)
    unused = f"; --init_from {init_from} counted for step 0 only" if init_from else ""
    run.say(f"resumed this run from {path}, step {step} ({repeated} steps are repeated){unused}")


def fit(
    run: Run,
    trainer: Trainer,
    track: Track,
    description: dict[str, Any],
    memory: dict[str, Any],
    actions: Sequence[Action],
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Train to the end with records, checkpoints and `actions`; a checkpoint holds `description` and `memory`.

    `saved` is called after each checkpoint. A run that is asked to stop (Ctrl-C, SIGTERM) finishes its step, is saved
    there, and raises `KeyboardInterrupt`. Raises `UserError` if the loss is not a number, its batch kept.
    """
    main = trainer.accelerator.is_main_process
    takes_part = main or trainer.sharding is not None  # whole weights for the first process are gathered by all

    def save() -> None:
        if takes_part:
            run.flush()
            own = {"step": trainer.progress.step, "progress": vars(trainer.progress), "warnings": run.warnings}
            average = None if trainer.average is None else trainer.average.module
            save_checkpoint(
                run.checkpoints,
                {**description, **memory, **own, LOSSES: tracker.losses, WATCH: vars(tracker.watch)},
                trainer.model,
                trainer.optimiser,
                average,
                trainer.balancing,
                keep=track.keep_checkpoints,
                write=main,
            )
        if main:
            saved()

    def reach(act: Callable[[Progress, Tracker], None], progress: Progress) -> None:
        with trainer.whole_weights(keep=main):
            if main:
                act(progress, tracker)

    milestones = [Milestones(count, partial(reach, act)) for count, act in actions] if takes_part else []
    past = memory.get(LOSSES, {}), LossWatch(**memory.get(WATCH, {}))
    tracker = Tracker(run, track, trainer.optim, trainer.progress, save, milestones, main, *past)
    with Interruptions(say=run.say) as asked:

        def save_is_asked(progress: Progress) -> bool:
            if trainer.sharding is None:
                return asked.take_save()
            # all must hear of it, which costs a message: not at every step
            return progress.step % track.log_every_steps == 0 and trainer.sharding.any(asked.take_save())

        def hook(progress: Progress, record: StepRecord) -> None:
            tracker(progress, record)
            if main:
                run.reached.to(progress.step)
            if record.is_latest and save_is_asked(progress):
                save()

        try:
            trainer.fit(hook, lambda: asked.stop)
            save()
        except NonFiniteLoss as error:
            save()
            rank = "" if main else f"-{trainer.accelerator.process_index}"  # each process has images of its own
            where = run.folder / f"failed_batch{rank}.safetensors"
            atomic_write_bytes(where, safetensors(error.evidence, {"step": str(error.step)}))
            raise UserError(f"{error} Its images are kept in {where}.") from error
        except KeyboardInterrupt:
            save()
            raise
        except Exception as error:
            can_save = trainer.sharding is None  # else it takes all processes, and the others wait within the step
            if trainer.failed_cleanly and can_save:
                with suppress(UserError):  # the disk may be what failed
                    save()
            if trainer.failed_cleanly and is_out_of_memory(error):
                step = trainer.progress.step
                clear_frames(error.__traceback__)  # they hold the activations of the step that failed
                saved_or_not = "which is saved" if can_save else "after the last checkpoint"
                raise out_of_memory(f"at step {step}, {saved_or_not}", what_fits(trainer, step)) from error
            raise
        finally:
            trainer.feed.close()
            tracker.close()
    trainer.optimiser.zero_grad(set_to_none=True)
    hand_back_freed_memory()
    trainer.gather()
    for failure in trainer.feed.pool.failures():
        run.warn(failure)
    if trainer.progress.skipped:
        run.warn(f"{trainer.progress.skipped} of {trainer.progress.step} steps were skipped: they became non-finite.")
    if asked.stop:
        raise KeyboardInterrupt


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

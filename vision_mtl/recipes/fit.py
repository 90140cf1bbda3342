"""Train in a run folder: resume, record, save checkpoints, and handle failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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
from vision_mtl.recipes.initial_weights import report_weights
from vision_mtl.recipes.run_warnings import tell_time_limit
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.checkpoint import (
    load_optimiser,
    newest_checkpoint,
    read_state,
    read_tensors,
    save_checkpoint,
    set_aside,
)
from vision_mtl.training.diagnosis import what_fits
from vision_mtl.training.dtensors import load_weights
from vision_mtl.training.loop import Hook, ObjectiveT, Trainer
from vision_mtl.training.loss_watch import LossWatch
from vision_mtl.training.objective import Feed
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.step_guard import NonFiniteLoss
from vision_mtl.training.step_record import Progress, StepRecord
from vision_mtl.training.tracking import Milestones, Tracker

Action = tuple[int, Callable[[Progress, Tracker], None]]  # number of times over the run, function
LOSSES = "losses"  # key in a checkpoint: losses since the last line of metrics.jsonl
WATCH = "watch"  # key in a checkpoint: the early losses that later losses are compared with


def make_trainer(
    config: RunConfig,
    accelerator: Accelerator,
    model: SharedModel,
    objective: ObjectiveT,
    feed: Feed,
    balancing: Balancing | None = None,
    optim: Optim | None = None,
) -> Trainer[ObjectiveT]:
    """Return the trainer that the config describes; `optim` replaces the config's, for another budget."""
    runtime, optim = config.runtime, optim or config.optim
    layout = runtime.layout(model.backbone)
    return Trainer(
        model,
        objective,
        feed,
        optim,
        accelerator,
        layout,
        config.seed,
        compiled=runtime.compile,
        balancing=balancing,
        shard=runtime.shard,
    )


def resume(trainer: Trainer, run: Run, memory: dict[str, Any], config: RunConfig | None = None) -> None:
    """Resume from the run's newest valid checkpoint, if it has one; `memory` gets the values saved under its keys.

    The log names the file that the weights are from, and states whether the run is new or resumed.
    """
    path = newest_checkpoint(run.checkpoints, lambda damaged, why: _skip_checkpoint(run, damaged, why))
    if run.is_main:
        remove_leftovers(run.checkpoints)
    if trainer.shard and trainer.strategy.alone:
        run.say(
            "runtime.shard has no effect in one process: start several with torchrun --nproc_per_node N train.py ..."
        )
    memory |= {LOSSES: {}, WATCH: {}}
    report_weights(run, trainer.model.backbone, is_new=path is None and (config is None or config.start is None))
    if path is None:
        _log_start(run, None if config is None else config.start)
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
    _log_resume(run, path, trainer.progress.step, None if config is None else config.init_from)


def _skip_checkpoint(run: Run, damaged: Path, why: str) -> None:
    run.warn(f"checkpoint {damaged.name} is skipped: {why}")
    if run.is_main:
        set_aside(damaged)


def _log_start(run: Run, start: Path | None) -> None:
    """Start a run without a checkpoint: a new one, or one that was killed before its first."""
    if not run.last_step:
        run.rewind(0)
    else:
        repeated = run.resume_from(0)
        run.say(f"restarted, not resumed: there is no checkpoint yet; {repeated} steps are repeated.")
    if start:
        run.say(f"initialised from {start}: a new run, at step 0")


def _log_resume(run: Run, path: Path, step: int, init_from: str | None) -> None:
    repeated = run.resume_from(step)
    unused = f"; --init_from {init_from} was used at step 0 only" if init_from else ""
    run.say(f"resumed this run from {path}, step {step} ({repeated} steps are repeated){unused}")


def fit(
    run: Run,
    trainer: Trainer,
    track: Track,
    description: dict[str, Any],
    memory: dict[str, Any],
    actions: Sequence[Action],
    on_checkpoint: Callable[[], None] = lambda: None,
    hook: Hook | None = None,
) -> None:
    """Train to the end; write records and checkpoints, and run `actions`.

    A checkpoint contains `description` and `memory`. `on_checkpoint` is called after each checkpoint, `hook` after each
    step. On Ctrl-C or SIGTERM, the step is completed, a checkpoint written and `KeyboardInterrupt` raised. Raises
    `UserError` for a non-finite loss, after saving the batch, and when memory runs out.
    """
    session = _Session(run, trainer, track, description, memory, actions, on_checkpoint, hook)
    with Interruptions(say=run.say) as interruptions:
        try:
            trainer.fit(partial(session.hook, interruptions), lambda: interruptions.stop)
            session.save()
        except NonFiniteLoss as error:
            session.save()
            raise UserError(f"{error} Its images are in {session.save_evidence(error)}.") from error
        except KeyboardInterrupt:
            session.save()
            raise
        except Exception as error:
            session.rescue(error)
            raise
        finally:
            trainer.feed.close()
            session.tracker.close()
    trainer.optimiser.zero_grad(set_to_none=True)
    hand_back_freed_memory()
    trainer.strategy.gather()
    for failure in trainer.feed.pool.failures():
        run.warn(failure)
    if trainer.progress.skipped:
        run.warn(f"{trainer.progress.skipped} of {trainer.progress.step} steps were skipped: they became non-finite.")
    if interruptions.stop:
        raise KeyboardInterrupt
    tell_time_limit(run, trainer.optim, trainer.progress)


@dataclass
class _Session:
    """One call of `fit`: its tracker, its checkpoints, and what it saves when training fails."""

    run: Run
    trainer: Trainer
    track: Track
    description: dict[str, Any]
    memory: dict[str, Any]
    actions: Sequence[Action]
    on_checkpoint: Callable[[], None]
    user_hook: Hook | None
    tracker: Tracker = field(init=False)

    def __post_init__(self) -> None:
        self.is_main = self.trainer.accelerator.is_main_process
        self.saves = self.is_main or self.trainer.strategy.saves_together
        milestones = [Milestones(count, partial(self._run_action, action)) for count, action in self.actions]
        past = self.memory.get(LOSSES, {}), LossWatch(**self.memory.get(WATCH, {}))
        optim, progress = self.trainer.optim, self.trainer.progress
        active = milestones if self.saves else []
        self.tracker = Tracker(self.run, self.track, optim, progress, self.save, active, self.is_main, *past)

    def hook(self, interruptions: Interruptions, progress: Progress, record: StepRecord) -> None:
        """Record a step; save a checkpoint if a signal asked for one."""
        self.tracker(progress, record)
        if self.user_hook is not None:
            self.user_hook(progress, record)
        if record.is_latest and self._must_save(interruptions, progress):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the present state."""
        trainer, progress = self.trainer, self.trainer.progress
        if self.saves:
            self.run.flush()
            own = {"step": progress.step, "progress": vars(progress), "warnings": self.run.warnings}
            save_checkpoint(
                self.run.checkpoints,
                {
                    **self.description,
                    **self.memory,
                    **own,
                    LOSSES: self.tracker.losses,
                    WATCH: vars(self.tracker.watch),
                },
                trainer.model,
                trainer.optimiser,
                None if trainer.average is None else trainer.average.module,
                trainer.balancing,
                keep=self.track.keep_checkpoints,
                write=self.is_main,
            )
        if self.is_main:
            self.on_checkpoint()

    def save_evidence(self, error: NonFiniteLoss) -> Path:
        """Write the images of the step whose loss was not finite; return the file, one per process."""
        rank = "" if self.is_main else f"-{self.trainer.accelerator.process_index}"
        where = self.run.folder / f"failed_batch{rank}.safetensors"
        atomic_write_bytes(where, safetensors(error.evidence, {"step": str(error.step)}))
        return where

    def rescue(self, error: Exception) -> None:
        """Save a checkpoint if the failed step changed nothing; raise `UserError` with advice when memory ran out."""
        trainer, step = self.trainer, self.trainer.progress.step
        if not trainer.failed_cleanly:
            return
        if is_out_of_memory(error):
            clear_frames(error.__traceback__)  # they hold the failed step's activations, and saving needs memory
        can_save = not trainer.strategy.saves_together  # else all processes must save, and others are in the step
        if can_save:
            with suppress(UserError):  # the disk may be what failed
                self.save()
        if is_out_of_memory(error):
            state = "which is saved" if can_save else "after the last checkpoint"
            advice = what_fits(
                trainer.model,
                trainer.objective,
                trainer.feed,
                step,
                optim=trainer.optim,
                optimiser=trainer.optimiser,
                layout=trainer.layout,
                autocast=trainer.accelerator.autocast,
                alone=trainer.strategy.alone,
            )
            raise out_of_memory(f"at step {step}, {state}", advice) from error

    def _run_action(self, action: Callable[[Progress, Tracker], None], progress: Progress) -> None:
        with self.trainer.strategy.full_weights(self.trainer.model, keep=self.is_main):
            if self.is_main:
                action(progress, self.tracker)

    def _must_save(self, interruptions: Interruptions, progress: Progress) -> bool:
        if not self.trainer.strategy.saves_together:
            return interruptions.take_save()
        # all processes must agree, which costs a message: not at every step
        return progress.step % self.track.log_every_steps == 0 and self.trainer.strategy.any(interruptions.take_save())


def write_result(run: Run, trainer: Trainer, metrics: dict[str, Any], data: dict[str, Any]) -> None:
    """Write `result.json` of a stage that trained: metrics, data, and the trainer's progress."""
    progress = trainer.progress
    run.about |= {
        "steps": progress.step,
        "forward_rows": progress.forward_rows,
        "backbone_parameters": sum(weights.numel() for weights in trainer.model.backbone.parameters()),
    }
    run.write_result(
        "completed",
        metrics=metrics,
        data=data,
        seconds=progress.seconds,
        images_seen=progress.images_seen,
        images_per_second=progress.images_seen / max(progress.seconds, 1e-9),
    )

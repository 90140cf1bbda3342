"""The trainer's hook: it logs steps, shows progress, runs actions at milestones, and saves checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vision_mtl.core.run import TRAIN, Run
from vision_mtl.training.loss_watch import LossWatch
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.progress import ProgressLine
from vision_mtl.training.recorders import Recorder, open_recorders
from vision_mtl.training.step_record import Progress, StepRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SKIP_WARNINGS = 3  # further skipped steps are only counted


@dataclass
class Milestones:
    """Calls an action at the end of each of `count` equal shares of training; `done` shares are over already."""

    count: int
    action: Callable[[Progress], None]
    done: int = 0

    def reach(self, share: float, progress: Progress) -> None:
        """Call the action if another share is over; several at once count as one. `share` in [0, 1] is done."""
        reached = int(share * self.count + 1e-9)
        if self.count and reached > self.done:
            self.done = reached
            self.action(progress)


@dataclass
class Tracker:
    """The trainer's hook. `actions` run at their milestones; `save` writes a checkpoint.

    `progress` is the trainer's before the first step: not 0 in a resumed run. `losses` holds those since the last line
    of metrics.jsonl, which shows their means, because the losses of single steps are too noisy.
    """

    run: Run
    track: Track
    optim: Optim
    progress: Progress
    save: Callable[[], None]
    actions: list[Milestones] = field(default_factory=list)
    is_main: bool = True
    losses: dict[str, list[float]] = field(default_factory=dict)
    watch: LossWatch = field(default_factory=LossWatch)

    def __post_init__(self) -> None:
        share = self.optim.progress(self.progress.step, self.progress.seconds)
        for milestones in self.actions:
            milestones.done = int(share * milestones.count + 1e-9)
        self.saved_at = self.progress.seconds
        self.first = Progress(self.progress.step, self.progress.seconds, self.progress.images_seen)
        self.recorders: list[Recorder] = []
        if self.is_main:
            services = self.track.tensorboard, self.track.tracker, self.track.project
            self.recorders = open_recorders(self.run.folder, self.progress.step, *services)
        self.bar = ProgressLine(self.run.console if self.is_main else None)
        self.bar.update(share, "the first step")

    def __call__(self, progress: Progress, record: StepRecord) -> None:
        """Log one step, and run the actions and the checkpoint that are due after it."""
        share = self.optim.progress(progress.step, progress.seconds)
        if record.skipped is not None:
            self._warn_skipped(progress, record)
        for name, value in {"loss": record.loss, **{f"loss.{n}": v for n, v in record.shown.items()}}.items():
            self.losses.setdefault(name, []).append(value)
        if progress.step % self.track.log_every_steps == 0 or share >= 1.0 or progress.step == 1:
            self._log(progress, record)
        self.bar.update(share, self._line(progress, record, share))
        if not record.is_latest:  # probes, pictures and checkpoints need the weights right after a step
            return
        for milestones in self.actions:
            milestones.reach(share, progress)
        if progress.seconds - self.saved_at >= self.track.checkpoint_every_seconds:
            self.saved_at = progress.seconds
            self.save()

    def show(self, text: str) -> None:
        """Show on the progress bar what an action does."""
        self.bar.update(self.bar.share, text)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record scalars by name."""
        for recorder in self.recorders:
            recorder.scalars(step, values)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """Record a matplotlib figure."""
        for recorder in self.recorders:
            recorder.figure(step, name, figure)

    def embedding(self, step: int, name: str, features: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """Record features (n, D) of images (n, C, H, W) in [0, 1], with a label for each."""
        for recorder in self.recorders:
            recorder.embedding(step, name, features, labels, images)

    def close(self) -> None:
        """Close the progress line and the recorders."""
        self.bar.close()
        for recorder in self.recorders:
            recorder.close()

    def speed(self, progress: Progress) -> float:
        """Return the images per second of training since this process started."""
        return (progress.images_seen - self.first.images_seen) / max(progress.seconds - self.first.seconds, 1e-9)

    def _log(self, progress: Progress, record: StepRecord) -> None:
        line: dict[str, Any] = {
            "kind": TRAIN,
            "step": progress.step,
            "images_seen": progress.images_seen,
            **{name: sum(values) / len(values) for name, values in self.losses.items()},
            **record.balance,
            "learning_rate": record.learning_rate,
            "gradient_norm": record.gradient_norm,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(self.speed(progress), 1),
        }
        shown = {n.partition(".")[2]: sum(v) / len(v) for n, v in self.losses.items() if n != "loss"}
        for warning in self.watch.look(progress.step, shown):
            self.run.warn(warning)
        self.losses.clear()
        if self.is_main:
            self.run.log(line)
        numbers = {f"train/{k}": v for k, v in line.items() if isinstance(v, float)}
        self.scalars(progress.step, numbers)

    def _warn_skipped(self, progress: Progress, record: StepRecord) -> None:
        if progress.skipped <= MAX_SKIP_WARNINGS:
            more = " Further skipped steps are only counted." if progress.skipped == MAX_SKIP_WARNINGS else ""
            self.run.warn(f"step {record.step} was skipped because it became non-finite: {record.skipped}.{more}")

    def _line(self, progress: Progress, record: StepRecord, share: float) -> str:
        losses = "  ".join(f"{name} {value:.3f}" for name, value in record.shown.items())
        left = (progress.seconds - self.first.seconds) / max(share, 1e-9) * (1 - share)
        return f"step {progress.step}  {losses}  {self.speed(progress):.0f} images/s  {left:.0f} s left"

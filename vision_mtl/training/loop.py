"""The training loop: load, predict, measure, step. One process or several, by accelerate.

Nothing here is random but the draws of `core.rng`, keyed by the step's images, and the global generator, which is set
anew before each step (for stochastic depth and dropout): a run that goes on from a checkpoint repeats exactly.

A GPU works behind what it is told, and waits whenever a number is read from it. So there several steps are pending
between two looks at their losses. The first of them that is no number stops all updates on the device itself, and is
pending again by itself once it is seen: what a broken step does is the same however late that is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.attention import choose_attention
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.batch_norm import synchronise
from vision_mtl.models.compiling import compile_parts
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.diagnosis import broken_images
from vision_mtl.training.dtensors import clip_gradients
from vision_mtl.training.objective import Feed, Objective, StepLoss, step_loss, sum_parts
from vision_mtl.training.optimiser import Kernel, build_optimiser
from vision_mtl.training.options import Optim
from vision_mtl.training.process_sync import StepRecord, gather_texts, means, sync_processes

if TYPE_CHECKING:
    from vision_mtl.training.sharding import Sharding

READ_EVERY = 10  # steps between two looks at a GPU's losses, as far apart as the lines of metrics.jsonl


@dataclass
class Progress:
    """How far training has come: what a checkpoint restores."""

    step: int = 0
    seconds: float = 0.0  # of training alone
    images_seen: int = 0  # over all processes
    skipped: int = 0  # steps without an update, because their loss or gradient was no number
    skipped_in_a_row: int = 0


class NonFiniteLoss(UserError):
    """The loss or the gradient is no number.

    `evidence`: the batch's images (B, C, H, W), their indices (B,) in the pool.
    """

    def __init__(self, step: int, what: str, evidence: dict[str, Tensor]) -> None:
        self.step, self.evidence = step, evidence
        super().__init__(
            f"training became non-finite at step {step}; {what}. Lower --optim.learning_rate, use "
            "--runtime.precision fp32, or leave such steps out with --optim.non_finite skip."
        )


Hook = Callable[[Progress, StepRecord], None]


@dataclass(frozen=True)
class PendingStep:
    """A step whose gradients are there and whose numbers, (), are on the device still. `shown` are the parts of its
    losses, `before` is what it changes beside the weights, as it was, `figures` are a balancing's."""

    step: int
    rate: float
    shown: list[StepLoss]
    total: Tensor
    norm: Tensor
    before: dict[str, Tensor]
    figures: dict[str, float]


@dataclass
class Trainer:
    """Fits `model` to `objective` on the batches of `feed`. `layout` is the memory format of model and images."""

    model: nn.Module
    objective: Objective
    feed: Feed
    optim: Optim
    accelerator: Accelerator
    layout: torch.memory_format
    seed: int
    compiled: bool = False
    balancing: Balancing | None = None  # how several losses become one gradient; None: their sum
    kernel: Kernel = "auto"  # of the optimiser
    read_every: int = 0  # steps between two looks at the losses, 0: READ_EVERY on a GPU; 1 where more cannot be undone
    progress: Progress = field(default_factory=Progress)
    failed_cleanly: bool = False  # a step broke off with an error before it changed anything
    shard: bool = False  # cut the backbone over the processes, where there are several

    def __post_init__(self) -> None:
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            synchronise(self.model)
        if isinstance(backbone := getattr(self.model, "backbone", None), Backbone):
            choose_attention(self.model, self.accelerator.device, math.prod(backbone.map_sizes[0]))
        self.sharding = self._cut() if self.shard and self.accelerator.num_processes > 1 else None
        if self.sharding is None:
            self.model.to(self.accelerator.device, memory_format=self.layout)
        extra = [] if self.balancing is None else list(self.balancing.to(self.accelerator.device).parameters())
        self.optimiser = build_optimiser(self.model, self.optim, extra, self.kernel)
        self.average = ModelEmaV3(self.model, decay=self.optim.ema_decay) if self.optim.ema_decay else None
        # accelerate wraps for several processes; it must not own the optimiser, whose state we save by name
        self.wrapped = self.model if self.sharding is not None else self.accelerator.prepare_model(self.model)
        undone = self.kernel != "foreach" and self.average is self.balancing is self.sharding is None
        asked = self.read_every or (READ_EVERY if self.accelerator.device.type == "cuda" else 1)
        self.read_every = asked if undone else 1
        self.broken = torch.zeros((), device=self.accelerator.device)  # 1: a step not yet looked at is no number
        self.suspect: int | None = None  # a step to be looked at by itself
        # found once: a walk through all modules at every step costs as much as the damage
        self.parameters = list(self.model.parameters())
        self.buffers = dict(self.model.named_buffers())
        if self.compiled:
            compile_parts(self.model.backbone, self.model.decoder)

    @property
    def scored_model(self) -> nn.Module:
        """The model to score, picture and export: the averaged one, if there is one.

        Where the backbone is cut, it has weights only within `whole_weights` and after `gather`.
        """
        if self.sharding is not None:
            return self.sharding.whole
        return self.model if self.average is None else self.average.module

    @contextmanager
    def whole_weights(self, keep: bool = True) -> Iterator[nn.Module]:
        """The model, not averaged, with whole weights, where `keep`. Every process must come by, at the same step."""
        if self.sharding is None:
            yield self.model
            return
        self.sharding.gather(keep)
        yield self.sharding.whole
        self.sharding.release()

    def gather(self) -> None:
        """Leave whole weights in `scored_model`, in every process: training is done. All must call it."""
        if self.sharding is not None:
            self.sharding.gather()

    def fit(self, hook: Hook, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to the end of `optim`; `hook` is called for each step once it is looked at, off the training clock.

        Where `stop` says so in any process, all of them end with `KeyboardInterrupt` after the same step and its hook.
        """
        self.model.train()
        while not self._is_over():
            start = time.perf_counter()
            records = self._steps(stop)
            seconds = time.perf_counter() - start
            found = sync_processes(self.accelerator, self.objective.shown, seconds, stop(), records)
            self.progress.seconds += found.seconds
            for record in found.records:
                progress = self.progress if record.is_latest else self._progress_after(record)
                hook(progress, record)
            if found.stopping or (self.accelerator.num_processes == 1 and stop()):
                raise KeyboardInterrupt

    def _cut(self) -> Sharding:
        from vision_mtl.training.sharding import Sharding, check_shard  # late: most runs need no FSDP

        check_shard(self.optim, self.balancing, self.compiled)
        return Sharding(self.model, self.accelerator.device, self.balancing)

    def _is_over(self) -> bool:
        return self.optim.progress(self.progress.step, self.progress.seconds) >= 1.0

    def _progress_after(self, record: StepRecord) -> Progress:
        """What the progress was after a step that is not the latest."""
        later = self.progress.step - (record.step + 1)
        images = self.progress.images_seen - later * self.feed.images_per_step
        return replace(self.progress, step=record.step + 1, images_seen=images)

    def _steps(self, stop: Callable[[], bool]) -> list[StepRecord]:
        """Take steps until it is time to look at them; what they showed."""
        if self.read_every == 1 or self.suspect == self.progress.step:
            return [self._step()]
        pending: list[PendingStep] = []
        alone = self.accelerator.num_processes == 1
        while not pending or not (self.progress.step % self.read_every == 0 or self._is_over() or (alone and stop())):
            try:
                pending.append(self._take())
            except Exception:
                if not (pending and alone):  # the other processes wait within the step
                    raise
                self.suspect = self.progress.step  # those before it are looked at first, then it is tried again
                break
            self._hold_if_broken(pending[-1])
            self._update()
        return self._sound(pending)

    def _hold_if_broken(self, pending: PendingStep) -> None:
        """From a step that is no number on, the optimiser changes nothing; the device sees to it, nobody waits."""
        watched = (pending.norm,) if self.accelerator.num_processes > 1 else (pending.norm, pending.total)
        for value in watched:
            self.broken = torch.maximum(self.broken, 1.0 - value.isfinite().to(self.broken))
        self.optimiser.found_inf = self.broken

    def _sound(self, pending: list[PendingStep]) -> list[StepRecord]:
        """Look at the steps: what those before the first broken one showed. That one is the next to be pending."""
        records = self._records(pending)
        self.optimiser.found_inf = None
        for number, record in enumerate(records):
            if not self._is_finite(record):
                self._put_back(pending[number].before)
                self.progress.images_seen -= (self.progress.step - record.step) * self.feed.images_per_step
                self.progress.step = self.suspect = record.step
                self.broken.zero_()
                records = records[:number]
                break
            self.progress.skipped_in_a_row = 0
        return [replace(record, is_latest=record is records[-1]) for record in records]

    def _step(self) -> StepRecord:
        """One step, looked at before it changes anything."""
        pending = self._take()
        record = self._guarded(self._records([pending])[0], pending.before)
        self._update(skip=record.skipped is not None)
        return record

    def _update(self, skip: bool = False) -> None:
        if not skip:
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, step=self.progress.step)
        self.progress.step += 1
        self.progress.images_seen += self.feed.images_per_step

    def _take(self) -> PendingStep:
        """The next step's losses and clipped gradients."""
        self.failed_cleanly = False
        step = self.progress.step
        torch.manual_seed((self.seed << 32) ^ step)
        progress = self.optim.progress(step, self.progress.seconds)
        rate = self.optim.rate(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        before = self._statistics()
        try:
            losses = self._accumulate(step, progress)
        except Exception:
            self._put_back(before)
            self.failed_cleanly = True  # nothing has changed: a checkpoint of now is one of before the step
            raise
        parameters = [p for p in self.parameters if p.grad is not None]
        clip = torch.nn.utils.clip_grad_norm_ if self.sharding is None else clip_gradients
        norm = clip(parameters, self.optim.clip_norm or float("inf"))
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        shown = [replace(loss, losses={}) for loss in losses]  # without their graphs
        figures = {} if self.balancing is None else self.balancing.figures()
        return PendingStep(step, rate, shown, total, norm, before, figures)

    def _accumulate(self, step: int, progress: float) -> list[StepLoss]:
        """The step's losses, part by part, and the gradients they leave."""
        losses: list[StepLoss] = []
        parts = self.feed.at(step, self.optim.accumulate)
        for i, (batch, share) in enumerate(parts):
            # gradients are averaged over processes once a step, with its last part
            with nullcontext() if self._syncs(last=i == len(parts) - 1) else self.accelerator.no_sync(self.wrapped):
                autocast = self.accelerator.autocast
                loss = step_loss(self.wrapped, self.objective, batch, self.layout, progress, autocast)
                self._backward(loss, share)
            losses.append(loss)
        if self.sharding is not None:
            self.sharding.average()
        if self.balancing is not None:
            self.balancing.finish()
        return losses

    def _syncs(self, last: bool) -> bool:
        return last and not (self.balancing is not None and self.balancing.averages_gradients)

    def _backward(self, loss: StepLoss, share: float) -> None:
        if self.balancing is None:
            self.accelerator.backward(loss.total)
            return
        # a loss is the part's contribution to the step's; a balancing multiplies it by the part's share itself
        scaled = {name: value / share for name, value in loss.losses.items()}
        self.balancing.add(scaled, share, self.accelerator.backward)

    def _records(self, pending: list[PendingStep]) -> list[StepRecord]:
        """What the steps showed: here the device is waited for."""
        totals = torch.stack([step.total for step in pending]).tolist()
        norms = torch.stack([step.norm for step in pending]).tolist()
        found = []
        for step, total, norm in zip(pending, totals, norms, strict=True):
            sums = sum_parts(step.shown)
            found.append(StepRecord(step.step, total, means(sums), norm, step.rate, step.figures, sums=sums))
        return found

    def _is_finite(self, record: StepRecord) -> bool:
        # of several processes each has a loss of its own, but all have the gradient's norm in common
        shared = self.accelerator.num_processes > 1
        return math.isfinite(record.gradient_norm) and (shared or math.isfinite(record.loss))

    def _statistics(self) -> dict[str, Tensor]:
        """Copies of what a step changes without the optimiser: running means, a balancing's memory. Small tensors."""
        memory = {} if self.balancing is None else dict(self.balancing.named_buffers())
        own = {f"model.{k}": v for k, v in self.buffers.items()}
        return {k: v.clone() for k, v in (own | {f"balancing.{k}": v for k, v in memory.items()}).items()}

    def _put_back(self, statistics: dict[str, Tensor]) -> None:
        for name, value in statistics.items():
            owner, _, key = name.partition(".")
            getattr(self, owner).get_buffer(key).copy_(value)

    def _guarded(self, record: StepRecord, statistics: dict[str, Tensor]) -> StepRecord:
        """The record; of a step that is no number, `statistics` are put back and it is marked, or the run ends."""
        if self._is_finite(record):
            self.progress.skipped_in_a_row = 0
            return record
        self._put_back(statistics)
        culprits = [name for name, value in record.parts.items() if not math.isfinite(value)]
        named = ", ".join(culprits) if culprits else "no single one (the gradient overflowed)"
        what = gather_texts(self.accelerator, f"loss of: {named}; {broken_images(self, record.step)}")
        if self.optim.non_finite == "stop" or self.progress.skipped_in_a_row >= self.optim.max_skipped:
            row = self.progress.skipped_in_a_row
            what += f", after {row} skipped steps in a row" if row else ""
            raise NonFiniteLoss(record.step, what, self.feed.evidence(record.step))
        self.progress.skipped_in_a_row += 1
        self.progress.skipped += 1
        self.optimiser.zero_grad(set_to_none=True)
        return replace(record, skipped=what)

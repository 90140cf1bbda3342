"""The training loop: take steps until the end that `optim` sets.

`Trainer._take_step` is one step, from images to the optimiser's update. A strategy (`training/strategies/`) decides how
processes share it. The guard (`training/step_guard.py`) handles non-finite losses and decides when a GPU's losses are
read.

Random draws come from `core.rng`, keyed by the step's images, and from the global generator, which is seeded before
each step (for stochastic depth and dropout). So a resumed run repeats the steps exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from vision_mtl.models.attention import choose_attention
from vision_mtl.models.compiling import compile_modules
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.diagnosis import broken_images
from vision_mtl.training.objective import Feed, Objective, StepLoss, step_loss
from vision_mtl.training.optimiser import Kernel, build_optimiser
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.smallest_batch import check_smallest_batch
from vision_mtl.training.step_guard import READ_EVERY, PendingStep, StepGuard
from vision_mtl.training.step_record import Progress, StepRecord
from vision_mtl.training.strategies.build import build_strategy

Hook = Callable[[Progress, StepRecord], object]  # called for each step; its result is ignored

ObjectiveT = TypeVar("ObjectiveT", bound=Objective)


@contextmanager
def counted_rows(backbone: nn.Module) -> Iterator[list[int]]:
    """Give a list that gets the number of rows of each pass through the backbone while the block runs."""
    counts: list[int] = []
    handle = backbone.register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    try:
        yield counts
    finally:
        handle.remove()


@dataclass
class Trainer(Generic[ObjectiveT]):
    """Fits `model` to `objective` on the batches of `feed`, which must return images on the accelerator's device.

    `layout` is the memory format of model and images. `balancing` combines the gradients of several losses; without it
    their sum is minimised. `kernel` is AdamW's implementation. Losses are read every `read_every` steps (0: 10 on a
    GPU, else 1), and at every step where a step cannot be undone. `shard` shards the backbone over several processes.
    Raises `UserError` for options that do not work with `shard`.
    """

    model: SharedModel
    objective: ObjectiveT
    feed: Feed
    optim: Optim
    accelerator: Accelerator = field(default_factory=lambda: Runtime().accelerator("auto"))
    layout: torch.memory_format = torch.contiguous_format
    seed: int = 0
    compiled: bool = False
    balancing: Balancing | None = None
    kernel: Kernel = "auto"
    read_every: int = 0
    progress: Progress = field(default_factory=Progress)
    shard: bool = False

    def __post_init__(self) -> None:
        device = self.accelerator.device
        self.strategy = build_strategy(self.accelerator, self.shard)
        self.strategy.check(self.optim, self.balancing, self.compiled)
        choose_attention(self.model, device, math.prod(self.model.backbone.map_sizes[0]))
        self.strategy.place(self.model, self.layout, self.balancing)
        check_smallest_batch(self.model, self.objective, self.feed, self.optim, self.accelerator.num_processes)
        extra = [] if self.balancing is None else list(self.balancing.to(device).parameters())
        self.optimiser = build_optimiser(self.model, self.optim, extra, self.kernel)
        self.average = ModelEmaV3(self.model, decay=self.optim.ema_decay) if self.optim.ema_decay else None
        self.wrapped = self.strategy.wrap(self.model)
        # collected once: walking through all modules at every step takes as long as damaging the images
        self.parameters = list(self.model.parameters())
        self.guard = self._build_guard()
        if self.compiled:
            compile_modules(self.model.backbone, self.model.decoder)

    def _build_guard(self) -> StepGuard:
        # reading late needs the device to skip updates: the foreach kernel, averaged weights and a balancing cannot
        can_undo = (
            self.kernel != "foreach" and self.average is None and self.balancing is None and self.strategy.reads_late
        )
        read_every = self.read_every or (READ_EVERY if self.accelerator.device.type == "cuda" else 1)
        return StepGuard(
            self.model,
            self.balancing,
            self.optimiser,
            self.optim,
            self.feed,
            self.strategy,
            explain=self._explain,
            read_every=read_every if can_undo else 1,
        )

    @property
    def scored_model(self) -> SharedModel:
        """The model to score, picture and export: the one with averaged weights, if there is one.

        In a sharded run it has no weights outside of `strategy.full_weights`, until `strategy.gather`.
        """
        return self.strategy.whole_model(self.model) if self.average is None else cast(SharedModel, self.average.module)

    @property
    def failed_cleanly(self) -> bool:
        """Whether the last step raised an error before it changed anything."""
        return self.guard.failed_cleanly

    def fit(self, hook: Hook | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        """Train until the end that `optim` sets; call `hook` for each step after its loss is read.

        The time of hooks does not count as training. When `stop` returns True in any process, all processes raise
        `KeyboardInterrupt` after the same step and its hook. Raises `NonFiniteLoss` for a step that is not finite,
        unless such steps are skipped.
        """
        self.model.train()
        while not self._is_over():
            start = time.perf_counter()
            records = self._take_steps(stop)
            seconds = time.perf_counter() - start
            found = self.strategy.sync(self.objective.shown, seconds, stop(), records)
            self.progress.seconds += found.seconds
            for record in found.records:
                progress = self.progress if record.is_latest else self._progress_after(record, found.records)
                if hook is not None:
                    hook(progress, record)
            if found.stopping or (self.strategy.alone and stop()):  # alone: a hook may have asked to stop
                raise KeyboardInterrupt

    def step(self) -> StepRecord:
        """Take one step, read its loss before the weights change, and return its record.

        Raises `NonFiniteLoss` as `fit` does. The caller puts the model into training mode.
        """
        self.guard.suspect(self.progress.step)
        self._take_step()
        return self.guard.read(self.progress)[-1]

    def _take_step(self) -> None:
        """Take one step: gather images, damage them, predict, measure the losses, backpropagate, clip, update."""
        step, optim = self.progress.step, self.optim
        done = optim.progress(step, self.progress.seconds)
        torch.manual_seed((self.seed << 32) ^ step)  # for stochastic depth and dropout
        rate = self._set_rate(done)
        self.optimiser.zero_grad(set_to_none=True)

        with self.guard.undo_on_error() as before, counted_rows(self.model.backbone) as counts:
            losses = []
            micro_batches = self.feed.at(step, optim.accumulate)
            for number, (batch, share) in enumerate(micro_batches, start=1):
                with self._syncing(last=number == len(micro_batches)):
                    loss = step_loss(  # damages the images, predicts, measures
                        self.wrapped, self.objective, batch, share, self.layout, done, self.accelerator.autocast
                    )
                    self._backward(loss, share)
                losses.append(loss)
            self.strategy.average_gradients()
            if self.balancing is not None:
                self.balancing.finish()

        with_gradient = [p for p in self.parameters if p.grad is not None]  # a head without rows has no gradient
        norm = self.strategy.clip(with_gradient, optim.clip_norm or math.inf)
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        shown = [replace(loss, losses={}) for loss in losses]  # without their graphs
        balance = {} if self.balancing is None else self.balancing.scalars()
        rows = sum(counts) * self.accelerator.num_processes
        self.progress.forward_rows += rows
        if self.guard.allows(PendingStep(step, rate, shown, total, norm, before, balance, rows), self.progress):
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, step=step)
        self.progress.step += 1
        self.progress.images_seen += self.feed.images_per_step

    def _set_rate(self, done: float) -> float:
        """Set the optimiser's learning rate for the share of training done; return it."""
        rate = self.optim.rate(done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def _syncing(self, last: bool) -> AbstractContextManager[object]:
        """Return the context of a backward pass; only the step's `last` one averages gradients over processes."""
        own = self.balancing is not None and self.balancing.averages_gradients
        return nullcontext() if last and not own else self.strategy.accumulating(self.wrapped)

    def _backward(self, loss: StepLoss, share: float) -> None:
        """Add the gradients of a micro-batch with `share` of the step's images."""
        if self.balancing is None:
            self.accelerator.backward(loss.total)
            return
        # a loss is this micro-batch's part of the step; `add` expects it divided by the share, and multiplies by it
        scaled = {name: value / share for name, value in loss.losses.items()}
        self.balancing.add(scaled, share, self.accelerator.backward)

    def _take_steps(self, stop: Callable[[], bool]) -> list[StepRecord]:
        """Take steps until their losses are due to be read; return their records."""
        is_due = False
        while not is_due:
            step = self.progress.step
            try:
                self._take_step()
            except Exception:
                if not self.guard.retries(step):
                    raise
                break
            at_once = self.guard.reads_at_once(step)
            is_due = at_once or self.progress.step % self.guard.read_every == 0 or self._is_over()
            is_due = is_due or (self.strategy.alone and stop())
        return self.guard.read(self.progress)

    def _is_over(self) -> bool:
        return self.optim.progress(self.progress.step, self.progress.seconds) >= 1.0

    def _progress_after(self, record: StepRecord, records: Sequence[StepRecord]) -> Progress:
        """Return the progress right after a step that is not the latest."""
        later = self.progress.step - (record.step + 1)
        images = self.progress.images_seen - later * self.feed.images_per_step
        rows = self.progress.forward_rows - sum(one.forward_rows for one in records if one.step > record.step)
        return replace(self.progress, step=record.step + 1, images_seen=images, forward_rows=rows)

    def _explain(self, step: int) -> str:
        """Return the cause of a non-finite step as a phrase."""
        done = self.optim.progress(step, self.progress.seconds)
        with self.strategy.full_weights(self.model) as model:
            return broken_images(
                model,
                self.objective,
                self.feed,
                step,
                progress=done,
                layout=self.layout,
                autocast=self.accelerator.autocast,
            )

"""The training loop: one step after another until `optim` is over.

`Trainer._take_step` is one step, from images to the optimiser's update. How processes share it is the strategy's
(`training/strategies/`); what happens when its loss is not finite, and when a GPU's losses are read, is the guard's
(`training/step_guard.py`).

Randomness comes from the draws of `core.rng`, keyed by the step's images, and from the global generator, which is
seeded anew before each step (for stochastic depth and dropout): a resumed run repeats exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from vision_mtl.models.attention import choose_attention
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.compiling import compile_parts
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.diagnosis import broken_images
from vision_mtl.training.objective import Feed, Objective, StepLoss, step_loss
from vision_mtl.training.optimiser import Kernel, build_optimiser
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.step_guard import READ_EVERY, PendingStep, StepGuard
from vision_mtl.training.step_record import Progress, StepRecord
from vision_mtl.training.strategies.build import build_strategy

Hook = Callable[[Progress, StepRecord], None]
ModelT = TypeVar("ModelT", bound=nn.Module)
ObjectiveT = TypeVar("ObjectiveT", bound=Objective)


@dataclass
class Trainer(Generic[ModelT, ObjectiveT]):
    """Fits `model` to `objective` on the batches of `feed`, whose images must be on the accelerator's device.

    `layout` is the memory format of model and images. `balancing` makes one gradient of several losses; without it
    their sum is minimised. `read_every` steps pass between two reads of the losses, 0: 10 on a GPU, else 1; 1 wherever
    a step cannot be undone. `shard` shards the backbone over the processes, where there are several. Raises `UserError`
    for options that do not go together with `shard`.
    """

    model: ModelT
    objective: ObjectiveT
    feed: Feed
    optim: Optim
    accelerator: Accelerator = field(default_factory=lambda: Runtime().accelerator("auto"))
    layout: torch.memory_format = torch.contiguous_format
    seed: int = 0
    compiled: bool = False
    balancing: Balancing | None = None
    kernel: Kernel = "auto"  # of the optimiser
    read_every: int = 0
    progress: Progress = field(default_factory=Progress)
    shard: bool = False

    def __post_init__(self) -> None:
        device = self.accelerator.device
        self.strategy = build_strategy(self.accelerator, self.shard)
        self.strategy.check(self.optim, self.balancing, self.compiled)
        if isinstance(backbone := getattr(self.model, "backbone", None), Backbone):
            choose_attention(self.model, device, math.prod(backbone.map_sizes[0]))
        self.strategy.place(self.model, self.layout, self.balancing)
        extra = [] if self.balancing is None else list(self.balancing.to(device).parameters())
        self.optimiser = build_optimiser(self.model, self.optim, extra, self.kernel)
        self.average = ModelEmaV3(self.model, decay=self.optim.ema_decay) if self.optim.ema_decay else None
        self.wrapped = self.strategy.wrap(self.model)
        # found once: a walk through all modules at every step costs as much as the damage
        self.parameters = list(self.model.parameters())
        self.guard = self._build_guard()
        if self.compiled:
            compile_parts(self.model.backbone, self.model.decoder)

    def _build_guard(self) -> StepGuard:
        # an update of the foreach kernel, of averaged weights or of a balancing cannot be held back on the device
        undone = self.kernel != "foreach" and self.average is self.balancing is None and self.strategy.reads_late
        asked = self.read_every or (READ_EVERY if self.accelerator.device.type == "cuda" else 1)
        return StepGuard(
            self.model,
            self.balancing,
            self.optimiser,
            self.optim,
            self.feed,
            self.strategy,
            explain=self._explain,
            read_every=asked if undone else 1,
        )

    @property
    def scored_model(self) -> ModelT:
        """The model to score, picture and export: the averaged one, if there is one.

        A sharded one has weights only within `strategy.full_weights` and after `strategy.gather`.
        """
        return cast(ModelT, self.strategy.whole_model(self.model) if self.average is None else self.average.module)

    @property
    def failed_cleanly(self) -> bool:
        """Whether the last step raised an error before it changed anything."""
        return self.guard.failed_cleanly

    def fit(self, hook: Hook | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to the end of `optim`; `hook` is called for each step once its loss is read, off the training clock.

        When `stop` returns True in any process, all of them raise `KeyboardInterrupt` after the same step and its hook.
        """
        self.model.train()
        while not self._is_over():
            start = time.perf_counter()
            records = self._take_steps(stop)
            seconds = time.perf_counter() - start
            found = self.strategy.sync(self.objective.shown, seconds, stop(), records)
            self.progress.seconds += found.seconds
            for record in found.records:
                progress = self.progress if record.is_latest else self._progress_after(record)
                if hook is not None:
                    hook(progress, record)
            if found.stopping or (self.strategy.alone and stop()):
                raise KeyboardInterrupt

    def step(self) -> StepRecord:
        """Take one step, read its loss before the weights change, and return its record.

        Raises `NonFiniteLoss` as `fit` does. The caller puts the model into training mode.
        """
        self.guard.suspect(self.progress.step)
        self._take_step()
        return self.guard.read(self.progress)[-1]

    def _take_step(self) -> None:
        """Take one step: gather images, damage them, predict, measure, propagate back, clip, update."""
        step, optim = self.progress.step, self.optim
        done = optim.progress(step, self.progress.seconds)
        torch.manual_seed((self.seed << 32) ^ step)  # of stochastic depth and dropout
        rate = self._set_rate(done)
        self.optimiser.zero_grad(set_to_none=True)

        with self.guard.undo_on_error() as before:
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

        trained = [p for p in self.parameters if p.grad is not None]  # a head without rows is left alone
        norm = self.strategy.clip(trained, optim.clip_norm or math.inf)
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        shown = [replace(loss, losses={}) for loss in losses]  # without their graphs
        balance = {} if self.balancing is None else self.balancing.figures()
        if self.guard.allows(PendingStep(step, rate, shown, total, norm, before, balance), self.progress):
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, step=step)
        self.progress.step += 1
        self.progress.images_seen += self.feed.images_per_step

    def _set_rate(self, done: float) -> float:
        """Set the learning rate for a share of training; return it."""
        rate = self.optim.rate(done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def _syncing(self, last: bool) -> AbstractContextManager[object]:
        """A context in which gradients are averaged over processes: once a step, with its last micro-batch."""
        own = self.balancing is not None and self.balancing.averages_gradients
        return nullcontext() if last and not own else self.strategy.accumulating(self.wrapped)

    def _backward(self, loss: StepLoss, share: float) -> None:
        """Add the gradients of a micro-batch, which has `share` of the step's images."""
        if self.balancing is None:
            self.accelerator.backward(loss.total)
            return
        # a loss is the micro-batch's contribution to the step's; a balancing multiplies by the share itself
        scaled = {name: value / share for name, value in loss.losses.items()}
        self.balancing.add(scaled, share, self.accelerator.backward)

    def _take_steps(self, stop: Callable[[], bool]) -> list[StepRecord]:
        """Take steps until it is time to read their losses; return their records."""
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

    def _progress_after(self, record: StepRecord) -> Progress:
        """What the progress was after a step that is not the latest."""
        later = self.progress.step - (record.step + 1)
        images = self.progress.images_seen - later * self.feed.images_per_step
        return replace(self.progress, step=record.step + 1, images_seen=images)

    def _explain(self, step: int) -> str:
        """What broke `step`, in words."""
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

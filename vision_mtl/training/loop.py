"""The training loop: load, predict, measure, step. One process or several, by accelerate.

Nothing here is random but the draws of `core.rng`, keyed by the step's images, and the global generator, which is set
anew before each step (for stochastic depth and dropout): a run that goes on from a checkpoint repeats exactly.
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
from vision_mtl.training.agreement import StepRecord, agree, gather_texts, means
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.cut_tensors import clip_gradients
from vision_mtl.training.guards import broken_images
from vision_mtl.training.objective import Feed, Objective, StepLoss, step_loss, sum_parts
from vision_mtl.training.optimiser import Kernel, Optim, build_optimiser

if TYPE_CHECKING:
    from vision_mtl.training.sharding import Sharding


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
        # found once: a walk through all modules at every step costs as much as the damage
        self.parameters = list(self.model.parameters())
        self.buffers = dict(self.model.named_buffers())
        if self.compiled:
            self.wrapped = torch.compile(self.wrapped)

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
        """Train to the end of `optim`; `hook` is called after each step, off the training clock.

        Where `stop` says so in any process, all of them end with `KeyboardInterrupt` after the same step and its hook.
        """
        self.model.train()
        while self.optim.progress(self.progress.step, self.progress.seconds) < 1.0:
            start = time.perf_counter()
            record = self._step()
            seconds = time.perf_counter() - start
            found = agree(self.accelerator, self.objective.shown, seconds, stop(), record.loss, record.sums)
            self.progress.seconds += found.seconds
            hook(self.progress, replace(record, loss=found.loss, parts=found.parts))
            if found.stopping or (self.accelerator.num_processes == 1 and stop()):
                raise KeyboardInterrupt

    def _cut(self) -> Sharding:
        from vision_mtl.training.sharding import Sharding, check_shard  # late: most runs need no FSDP

        check_shard(self.optim, self.balancing, self.compiled)
        return Sharding(self.model, self.accelerator.device, self.balancing)

    def _step(self) -> StepRecord:
        step = self.progress.step
        torch.manual_seed((self.seed << 32) ^ step)
        progress = self.optim.progress(step, self.progress.seconds)
        rate = self.optim.rate(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        statistics = self._statistics()
        try:
            losses = self._accumulate(step, progress)
        except Exception:
            self._put_back(statistics)
            self.failed_cleanly = True  # nothing has changed: a checkpoint of now is one of before the step
            raise
        record = self._guarded(self._record(step, losses, rate), statistics)
        if record.skipped is None:
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, step=step)
        self.progress.step += 1
        self.progress.images_seen += self.feed.images_per_step
        return record

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

    def _record(self, step: int, losses: list[StepLoss], rate: float) -> StepRecord:
        parameters = [p for p in self.parameters if p.grad is not None]
        limit = self.optim.clip_norm or float("inf")
        clip = torch.nn.utils.clip_grad_norm_ if self.sharding is None else clip_gradients
        norm = clip(parameters, limit)
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        figures = {} if self.balancing is None else self.balancing.figures()
        sums = sum_parts(losses)
        return StepRecord(step, float(total), means(sums), float(norm), rate, figures, sums=sums)

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
        # of several processes each has a loss of its own, but all have the gradient's norm in common
        shared = self.accelerator.num_processes > 1
        if math.isfinite(record.gradient_norm) and (shared or math.isfinite(record.loss)):
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

"""The training loop: gather, damage, predict, compare, step. One process or several, by accelerate.

Nothing here is random but the draws of `core.rng`, keyed by the step's images, and the global generator, which is set
anew before each step (for stochastic depth and dropout): a run that goes on from a checkpoint repeats exactly.
"""
# B images of this process in one part of a step

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool
from vision_mtl.training.objective import PretextObjective, StepLoss
from vision_mtl.training.optimiser import Optim, build_optimiser


@dataclass
class Progress:
    """How far training has come: what a checkpoint restores."""

    step: int = 0
    seconds: float = 0.0  # of training alone
    images_seen: int = 0  # over all processes


@dataclass(frozen=True)
class StepRecord:
    """What one step showed: the relative loss (1 = chance) in all and by pretext, the gradient's norm, the rate."""

    step: int
    loss: float
    parts: dict[str, float]
    gradient_norm: float
    learning_rate: float


class NonFiniteLoss(UserError):
    """The loss or the gradient is not a number. `indices` are the batch's images in the pool."""

    def __init__(self, step: int, culprits: list[str], indices: Tensor, images: Tensor) -> None:
        self.step, self.culprits, self.indices, self.images = step, culprits, indices, images
        named = ", ".join(culprits) if culprits else "no single one (the gradient overflowed)"
        super().__init__(
            f"training became non-finite at step {step}; pretexts: {named}. Lower --optim.learning_rate, "
            "or use --runtime.precision fp32."
        )


Hook = Callable[[Progress, StepRecord], None]


@dataclass
class Trainer:
    """Fits `model` to `objective` on the images of `batches`. `layout` is the memory format of model and images."""

    model: nn.Module
    objective: PretextObjective
    pool: Pool
    batches: Batches
    optim: Optim
    accelerator: Accelerator
    layout: torch.memory_format
    seed: int
    compiled: bool = False
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.model.to(self.accelerator.device, memory_format=self.layout)
        self.optimiser = build_optimiser(self.model, self.optim)
        self.average = ModelEmaV3(self.model, decay=self.optim.ema_decay) if self.optim.ema_decay else None
        # accelerate wraps for several processes; it must not own the optimiser, whose state we save by name
        self.wrapped = self.accelerator.prepare_model(self.model)
        if self.compiled:
            self.wrapped = torch.compile(self.wrapped)

    @property
    def scored_model(self) -> nn.Module:
        """The model to score, picture and export: the averaged one, if there is one."""
        return self.model if self.average is None else self.average.module

    def fit(self, hook: Hook) -> None:
        """Train to the end of `optim`; `hook` is called after each step, off the training clock."""
        self.model.train()
        while self.optim.progress(self.progress.step, self.progress.seconds) < 1.0:
            start = time.perf_counter()
            record = self._step()
            self.progress.seconds += self._agree(time.perf_counter() - start)
            hook(self.progress, record)

    def _step(self) -> StepRecord:
        step = self.progress.step
        torch.manual_seed((self.seed << 32) ^ step)
        rate = self.optim.rate(self.optim.progress(step, self.progress.seconds))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        indices, epochs = self.batches.at(step)
        parts: list[StepLoss] = []
        chunks = list(zip(indices.chunk(self.optim.accumulate), epochs.chunk(self.optim.accumulate), strict=True))
        for i, (chunk, epoch) in enumerate(chunks):
            images, keys = self.load(chunk, epoch)
            last = i == len(chunks) - 1
            # gradients are averaged over processes once a step, with its last part
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self.accelerator.autocast():
                    loss = self.objective(self.wrapped, images, keys, self.layout)
                self.accelerator.backward(loss.total * (len(chunk) / len(indices)))
            parts.append(loss)
        record = self._record(step, parts, rate)
        self._guard(record, indices)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.model, step=step)
        self.progress.step += 1
        self.progress.images_seen += len(indices) * self.accelerator.num_processes
        return record

    def load(self, indices: Tensor, epochs: Tensor) -> tuple[Tensor, Keys]:
        """Images (B, C, H, W) and their keys, on the device."""
        device = self.accelerator.device
        images = self.pool.gather(indices).to(device, non_blocking=True)
        return images, Keys(self.seed, epochs.to(device), indices.to(device))

    def _record(self, step: int, losses: list[StepLoss], rate: float) -> StepRecord:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        limit = self.optim.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        names = sorted({name for loss in losses for name in loss.parts})
        parts = {n: _mean([loss.parts[n] for loss in losses if n in loss.parts]) for n in names}
        return StepRecord(step, _mean([loss.total.detach() for loss in losses]), parts, float(norm), rate)

    def _guard(self, record: StepRecord, indices: Tensor) -> None:
        finite = torch.tensor([record.loss, record.gradient_norm]).isfinite().all()
        if not bool(finite):
            culprits = [name for name, value in record.parts.items() if value != value or abs(value) == float("inf")]
            raise NonFiniteLoss(record.step, culprits, indices, self.pool.gather(indices))

    def _agree(self, seconds: float) -> float:
        """The same clock for all processes, or they would stop at different steps."""
        if self.accelerator.num_processes == 1:
            return seconds
        longest = self.accelerator.gather(torch.tensor([seconds], device=self.accelerator.device))
        return float(longest.max())


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack([v.float() for v in values]).mean())

"""What happens when a step's loss or gradient is not finite: the run stops with evidence, or the step is skipped.

On the CPU every step's loss is read before the weights change. A GPU runs behind the Python program, and reading a
number waits for it. So on a GPU several steps stay pending between two reads. The first non-finite one among them stops
all further updates on the device itself (the optimiser's `found_inf`). When the losses are read, training goes back to
that step, which is then taken again and read at once. So the result is the same, however late a loss is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.objective import Feed, StepLoss, sum_shown
from vision_mtl.training.options import Optim
from vision_mtl.training.step_record import Progress, StepRecord, means
from vision_mtl.training.strategies.contract import Strategy

READ_EVERY = 10  # steps between two reads of a GPU's losses, as far apart as the lines of metrics.jsonl


class NonFiniteLoss(UserError):
    """The loss or the gradient is not finite.

    `evidence`: the batch's images (B, C, H, W), their indices (B,) in the pool.
    """

    def __init__(self, step: int, what: str, evidence: dict[str, Tensor]) -> None:
        self.step, self.evidence = step, evidence
        super().__init__(
            f"training became non-finite at step {step}; {what}. Lower --optim.learning_rate, use "
            "--runtime.precision fp32, or leave such steps out with --optim.non_finite skip."
        )


@dataclass(frozen=True)
class PendingStep:
    """A step whose numbers, `total` and `norm` (), are still on the device.

    `losses` are those of its micro-batches without their graphs, `before` the running statistics before the step,
    `balance` the numbers of a balancing.
    """

    step: int
    rate: float
    losses: list[StepLoss]
    total: Tensor
    norm: Tensor
    before: dict[str, Tensor]
    balance: dict[str, float]


class StepGuard:
    """Decides whether the optimiser may take a step, and reads the steps' losses.

    `explain` says in words what broke a step, by its number. `read_every` steps pass between two reads; it must be 1
    where a step cannot be undone.
    """

    def __init__(
        self,
        model: nn.Module,
        balancing: nn.Module | None,
        optimiser: torch.optim.Optimizer,
        optim: Optim,
        feed: Feed,
        strategy: Strategy,
        explain: Callable[[int], str],
        read_every: int,
    ) -> None:
        # found once: a walk through all modules at every step costs as much as the damage
        self.buffers, self.balancing = {f"model.{name}": b for name, b in model.named_buffers()}, balancing
        self.optimiser, self.optim, self.feed, self.strategy = optimiser, optim, feed, strategy
        self.explain, self.read_every = explain, read_every
        self.failed_cleanly = False  # a step raised an error before it changed anything
        self._pending: list[PendingStep] = []
        self._records: list[StepRecord] = []  # of steps that were read at once
        self._broken = torch.zeros((), device=strategy.accelerator.device)  # 1: a pending step is not finite
        self._suspect: int | None = None  # a step to be read at once

    @contextmanager
    def undo_on_error(self) -> Iterator[dict[str, Tensor]]:
        """A context with copies of the running statistics, of any shape, which are put back if the block raises."""
        self.failed_cleanly = False
        before = {name: value.clone() for name, value in self._statistics().items()}
        try:
            yield before
        except Exception:
            self._restore(before)
            self.failed_cleanly = True  # nothing has changed: a checkpoint of now is one of before the step
            raise

    def reads_at_once(self, step: int) -> bool:
        """Whether the loss of `step` is read before the weights change."""
        return self.read_every == 1 or self._suspect == step

    def suspect(self, step: int) -> None:
        """Read the loss of `step` at once when it is taken."""
        self._suspect = step

    def allows(self, pending: PendingStep, progress: Progress) -> bool:
        """Whether the optimiser may take the step; raises `NonFiniteLoss` where it may not and the run must stop.

        Of a step that is read late the answer is yes: the device holds the update back if the step is not finite.
        """
        if self.reads_at_once(pending.step):
            (record,) = self._read([pending])
            self._records = [self._judged(record, pending.before, progress)]
            return self._records[0].skipped is None
        self._pending.append(pending)
        # each of several processes has its own loss, but all have the gradient's norm in common
        for value in (pending.norm, pending.total) if self.strategy.alone else (pending.norm,):
            self._broken = torch.maximum(self._broken, 1.0 - value.isfinite().to(self._broken))
        self.optimiser.found_inf = self._broken
        return True

    def retries(self, step: int) -> bool:
        """Whether `step`, which just failed, is to be taken again once the steps before it are read."""
        if not (self.failed_cleanly and self._pending and self.strategy.alone):  # other processes wait within the step
            return False
        self.suspect(step)
        return True

    def read(self, progress: Progress) -> list[StepRecord]:
        """Return the records of the steps since the last read; this waits for the device.

        From the first non-finite one on, pending steps are undone: `progress` goes back to it.
        """
        records, self._records = self._records, []
        if self._pending:
            records, self._pending = self._sound(self._pending, progress), []
        return [replace(record, is_latest=record is records[-1]) for record in records]

    def _sound(self, pending: list[PendingStep], progress: Progress) -> list[StepRecord]:
        """The records of the steps before the first non-finite one."""
        records = self._read(pending)
        self.optimiser.found_inf = None
        for number, record in enumerate(records):
            if not self._is_finite(record):
                self._restore(pending[number].before)
                progress.images_seen -= (progress.step - record.step) * self.feed.images_per_step
                progress.step = record.step
                self.suspect(record.step)
                self._broken.zero_()
                return records[:number]
            progress.skipped_in_a_row = 0
        return records

    def _read(self, pending: list[PendingStep]) -> list[StepRecord]:
        totals = torch.stack([step.total for step in pending]).tolist()
        norms = torch.stack([step.norm for step in pending]).tolist()
        found = []
        for step, total, norm in zip(pending, totals, norms, strict=True):
            sums = sum_shown(step.losses)
            found.append(StepRecord(step.step, total, means(sums), norm, step.rate, step.balance, sums=sums))
        return found

    def _is_finite(self, record: StepRecord) -> bool:
        return math.isfinite(record.gradient_norm) and (not self.strategy.alone or math.isfinite(record.loss))

    def _statistics(self) -> dict[str, Tensor]:
        """What a step changes beside the weights: running means, and a balancing's memory. Small tensors."""
        memory = {} if self.balancing is None else dict(self.balancing.named_buffers())  # some are replaced by a step
        return self.buffers | {f"balancing.{name}": value for name, value in memory.items()}

    def _restore(self, before: dict[str, Tensor]) -> None:
        present = self._statistics()
        for name, value in before.items():
            present[name].copy_(value)

    def _judged(self, record: StepRecord, before: dict[str, Tensor], progress: Progress) -> StepRecord:
        """The record; of a non-finite step, with the reason, after its statistics are put back."""
        if self._is_finite(record):
            progress.skipped_in_a_row = 0
            return record
        self._restore(before)
        culprits = [name for name, value in record.shown.items() if not math.isfinite(value)]
        named = ", ".join(culprits) if culprits else "no single one (the gradient overflowed)"
        what = self.strategy.gather_texts(f"loss of: {named}; {self.explain(record.step)}")
        if self.optim.non_finite == "stop" or progress.skipped_in_a_row >= self.optim.max_skipped:
            row = progress.skipped_in_a_row
            what += f", after {row} skipped steps in a row" if row else ""
            raise NonFiniteLoss(record.step, what, self.feed.evidence(record.step))
        progress.skipped_in_a_row += 1
        progress.skipped += 1
        self.optimiser.zero_grad(set_to_none=True)
        return replace(record, skipped=what)

"""Handle a step whose loss or gradient is not finite: stop the run with evidence, or skip the step.

On the CPU every step's loss is read before the weights change. A GPU runs asynchronously, and reading a value
synchronises with it, so on a GPU the losses of several pending steps are read together. The first non-finite step among
them disables all further updates on the device (the optimiser's `found_inf`). When the losses are read, training
returns to that step, takes it again and reads its loss at once. So the result does not depend on when losses are read.
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

READ_EVERY = 10  # steps between two reads of a GPU's losses; the same as between lines of metrics.jsonl


class NonFiniteLoss(UserError):
    """The loss or the gradient is not finite.

    `evidence`: the batch's `images` (B, C, H, W) and their `indices` (B,) in the pool.
    """

    def __init__(self, step: int, what: str, evidence: dict[str, Tensor]) -> None:
        self.step, self.evidence = step, evidence
        super().__init__(
            f"training became non-finite at step {step}; {what}. Lower --optim.learning_rate, use "
            "--runtime.precision fp32, or skip such steps with --optim.non_finite skip."
        )


@dataclass(frozen=True)
class PendingStep:
    """A step whose loss `total` () and gradient `norm` () are still on the device.

    `losses` are those of its micro-batches, without graphs; `before` holds the running statistics before the step,
    `balance` the weights and cosines of a balancing.
    """

    step: int
    rate: float
    losses: list[StepLoss]
    total: Tensor
    norm: Tensor
    before: dict[str, Tensor]
    balance: dict[str, float]
    forward_rows: int


class StepGuard:
    """Decides whether the optimiser may take a step, and reads the steps' losses.

    `explain(step)` returns the cause of a non-finite step as a phrase. `read_every` steps pass between two reads; it
    must be 1 if a step cannot be undone.
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
        # collected once: walking through all modules at every step takes as long as damaging the images
        self.buffers, self.balancing = {f"model.{name}": b for name, b in model.named_buffers()}, balancing
        self.optimiser, self.optim, self.feed, self.strategy = optimiser, optim, feed, strategy
        self.explain, self.read_every = explain, read_every
        self.failed_cleanly = False  # whether the last step raised an error before it changed anything
        self._pending: list[PendingStep] = []
        self._records: list[StepRecord] = []  # of steps that were read at once
        self._broken = torch.zeros((), device=strategy.accelerator.device)  # 1: a pending step is not finite
        self._suspect: int | None = None  # a step to be read at once

    @contextmanager
    def undo_on_error(self) -> Iterator[dict[str, Tensor]]:
        """Return a context with copies of the running statistics; if its block raises, it restores them."""
        self.failed_cleanly = False
        before = {name: value.clone() for name, value in self._statistics().items()}
        try:
            yield before
        except Exception:
            self._restore(before)
            self.failed_cleanly = True  # a checkpoint saved now is one from before the step
            raise

    def reads_at_once(self, step: int) -> bool:
        """Return whether the loss of `step` is read before the weights change."""
        return self.read_every == 1 or self._suspect == step

    def suspect(self, step: int) -> None:
        """Make the loss of `step` be read before the weights change."""
        self._suspect = step

    def allows(self, pending: PendingStep, progress: Progress) -> bool:
        """Return whether the optimiser may take the step; raise `NonFiniteLoss` if the run must stop.

        For a step that is read late this is True: the device skips the update if the step is not finite.
        """
        if self.reads_at_once(pending.step):
            (record,) = self._read([pending])
            self._records = [self._skip_or_stop(record, pending.before, progress)]
            return self._records[0].skipped is None
        self._pending.append(pending)
        # with several processes only the gradient's norm is the same in all of them, the loss is not
        for value in (pending.norm, pending.total) if self.strategy.alone else (pending.norm,):
            self._broken = torch.maximum(self._broken, 1.0 - value.isfinite().to(self._broken))
        self._set_found_inf(self._broken)
        return True

    def retries(self, step: int) -> bool:
        """Return whether `step`, which just raised an error, is taken again after the steps before it are read."""
        if not (self.failed_cleanly and self._pending and self.strategy.alone):  # other processes wait in the step
            return False
        self.suspect(step)
        return True

    def read(self, progress: Progress) -> list[StepRecord]:
        """Return the records of the steps since the last read. This synchronises with the device.

        The first non-finite pending step and all after it are undone: `progress` returns to that step.
        """
        records, self._records = self._records, []
        if self._pending:
            records, self._pending = self._finite_records(self._pending, progress), []
        return [replace(record, is_latest=record is records[-1]) for record in records]

    def _set_found_inf(self, flag: Tensor | None) -> None:
        # AMP's attribute: AdamW skips its update on the device where the flag is 1
        self.optimiser.found_inf = flag  # type: ignore[attr-defined]

    def _finite_records(self, pending: list[PendingStep], progress: Progress) -> list[StepRecord]:
        """Return the records of the steps before the first non-finite one, and undo the others."""
        records = self._read(pending)
        self._set_found_inf(None)
        for number, record in enumerate(records):
            if not self._is_finite(record):
                self._restore(pending[number].before)
                progress.images_seen -= (progress.step - record.step) * self.feed.images_per_step
                progress.forward_rows -= sum(step.forward_rows for step in pending[number:])
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
            shown = StepRecord(step.step, total, means(sums), norm, step.rate, step.balance, sums=sums)
            found.append(replace(shown, forward_rows=step.forward_rows))
        return found

    def _is_finite(self, record: StepRecord) -> bool:
        return math.isfinite(record.gradient_norm) and (not self.strategy.alone or math.isfinite(record.loss))

    def _statistics(self) -> dict[str, Tensor]:
        """Return the small tensors that a step changes in addition to the weights: running means, balancing buffers."""
        own = {} if self.balancing is None else dict(self.balancing.named_buffers())  # a step may replace some of them
        return self.buffers | {f"balancing.{name}": value for name, value in own.items()}

    def _restore(self, before: dict[str, Tensor]) -> None:
        present = self._statistics()
        for name, value in before.items():
            present[name].copy_(value)

    def _skip_or_stop(self, record: StepRecord, before: dict[str, Tensor], progress: Progress) -> StepRecord:
        """Return the record; if it is not finite, restore the statistics and add the reason, or raise the error."""
        if self._is_finite(record):
            progress.skipped_in_a_row = 0
            return record
        self._restore(before)
        names = [name for name, value in record.shown.items() if not math.isfinite(value)]
        listed = ", ".join(names) if names else "no single one (the gradient overflowed)"
        what = self.strategy.gather_texts(f"loss of: {listed}; {self.explain(record.step)}")
        if self.optim.non_finite == "stop" or progress.skipped_in_a_row >= self.optim.max_skipped:
            count = progress.skipped_in_a_row
            what += f", after {count} skipped steps in a row" if count else ""
            raise NonFiniteLoss(record.step, what, self.feed.evidence(record.step))
        progress.skipped_in_a_row += 1
        progress.skipped += 1
        self.optimiser.zero_grad(set_to_none=True)
        return replace(record, skipped=what)

"""Synchronise the processes of a run after one or more steps: the clock, requests to stop, and the losses.

All of it is gathered in one message. Afterwards every process logs, skips and saves by the numbers of the whole batch.
"""
# W processes, P names of shown losses, S steps

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from vision_mtl.training.step_record import StepRecord, means


@dataclass(frozen=True)
class Synced:
    """The slowest process's seconds, whether any process must stop, and the records with the losses over all."""

    seconds: float
    stopping: bool
    records: list[StepRecord]


def sync_processes(
    accelerator: Accelerator, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]
) -> Synced:
    """Return the values that hold for all processes. All must call it, with records of the same steps.

    `names` are the keys that a record's `sums` may have in any process, in the same order everywhere. `loss` becomes
    the mean over processes, because their gradients are averaged; a shown loss becomes its mean over the images of all
    processes. A shown loss that no process has is absent.
    """
    own = [seconds, float(stopping)]
    for record in records:
        own.append(record.loss)
        for name in names:
            own += [*record.sums.get(name, (0.0, 0.0)), float(name in record.sums)]
    gathered = accelerator.gather(torch.tensor([own], dtype=torch.float64, device=accelerator.device)).cpu()
    values = gathered[:, 2:].unflatten(1, (len(records), 1 + 3 * len(names)))  # (W, S, 1 + 3 P)
    found = []
    for record, loss, sums in zip(records, values[:, :, 0].mean(0).tolist(), values[:, :, 1:].sum(0), strict=True):
        rows = zip(names, sums.view(-1, 3).tolist(), strict=True)
        total = {name: (value, count) for name, (value, count, present) in rows if present}
        found.append(replace(record, loss=loss, shown=means(total)))
    return Synced(float(gathered[:, 0].max()), bool(gathered[:, 1].any()), found)


def gather_texts(text: str) -> str:
    """Return the texts of all processes, without duplicates, joined by semicolons. All must call it."""
    return "; ".join(dict.fromkeys(gather_object([text])))

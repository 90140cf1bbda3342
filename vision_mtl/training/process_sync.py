"""What the processes of a run tell each other after one or more steps: the clock, a wish to stop, and the losses.

One message carries all of it, so that what is logged, skipped and saved is that of the whole batch, whichever process
writes it.
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
    """The longest clock of all processes, whether any of them is asked to stop, and the records with the losses of
    all."""

    seconds: float
    stopping: bool
    records: list[StepRecord]


def sync_processes(
    accelerator: Accelerator, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]
) -> Synced:
    """Return what holds for all processes. All must call it, with records of the same steps.

    `names` are those that a record's `sums` may have in any process, in one order. `loss` becomes the mean over
    processes, whose gradients are averaged; a shown loss becomes its sum over all images by their number, as in one
    process with all of them. A shown loss that no process has is absent.
    """
    own = [seconds, float(stopping)]
    for record in records:
        own.append(record.loss)
        for name in names:
            own += [*record.sums.get(name, (0.0, 0.0)), float(name in record.sums)]
    everybody = accelerator.gather(torch.tensor([own], dtype=torch.float64, device=accelerator.device)).cpu()
    told = everybody[:, 2:].unflatten(1, (len(records), 1 + 3 * len(names)))  # (W, S, 1 + 3 P)
    found = []
    for record, loss, sums in zip(records, told[:, :, 0].mean(0).tolist(), told[:, :, 1:].sum(0), strict=True):
        rows = zip(names, sums.view(-1, 3).tolist(), strict=True)
        total = {name: (value, count) for name, (value, count, present) in rows if present}
        found.append(replace(record, loss=loss, shown=means(total)))
    return Synced(float(everybody[:, 0].max()), bool(everybody[:, 1].any()), found)


def gather_texts(text: str) -> str:
    """Return the texts of all processes, each different one once. All must call it."""
    return "; ".join(dict.fromkeys(gather_object([text])))

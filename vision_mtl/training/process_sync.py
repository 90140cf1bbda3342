"""What the processes of one run tell each other when they look at their steps: one clock, one will to stop, and the
losses of all.

One message carries all of it, so that what is logged, skipped and saved is the global batch's, whichever process writes
it down.
"""
# W processes, P names of parts, S steps

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

Sums = dict[str, tuple[float, float]]  # of a part: the sum of its losses, and of how many images


@dataclass(frozen=True)
class StepRecord:
    """What one step showed: the loss in all, each pretext's and task's own, the gradient's norm, the rate."""

    step: int
    loss: float
    parts: dict[str, float]
    gradient_norm: float
    learning_rate: float
    balance: dict[str, float] = field(default_factory=dict)  # weights and cosines of a balancing, if there is one
    skipped: str | None = None  # why the step was skipped, if it was
    is_latest: bool = True  # whether the weights are those after this step; else later ones were taken already
    sums: Sums = field(default_factory=dict)  # what `parts` are the means of


@dataclass(frozen=True)
class Synced:
    """The longest clock of all processes, whether any of them is asked to stop, and the records of the steps with the
    losses and parts of all."""

    seconds: float
    stopping: bool
    records: list[StepRecord]


def sync_processes(
    accelerator: Accelerator, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]
) -> Synced:
    """What holds for all processes, of the same steps in each; `names` are those that a record's `sums` may have in any
    of them, in one order.

    A loss is the mean over processes, whose gradients are averaged; a part's is its sum over all images by their
    number, as in one process with all of them. A part that no process has is absent.
    """
    if accelerator.num_processes == 1:
        return Synced(seconds, stopping, list(records))
    own = [seconds, float(stopping)]
    for record in records:
        own.append(record.loss)
        for name in names:
            own += [*record.sums.get(name, (0.0, 0.0)), float(name in record.sums)]
    everybody = accelerator.gather(torch.tensor([own], dtype=torch.float64, device=accelerator.device)).cpu()
    told = everybody[:, 2:].unflatten(1, (len(records), 1 + 3 * len(names)))  # (W, S, 1 + 3 P)
    found = []
    for record, loss, parts in zip(records, told[:, :, 0].mean(0).tolist(), told[:, :, 1:].sum(0), strict=True):
        rows = zip(names, parts.view(-1, 3).tolist(), strict=True)
        total = {name: (value, count) for name, (value, count, present) in rows if present}
        found.append(replace(record, loss=loss, parts=means(total)))
    return Synced(float(everybody[:, 0].max()), bool(everybody[:, 1].any()), found)


def means(sums: Sums) -> dict[str, float]:
    """Each part's mean over its images; 0 where it has none."""
    return {name: value / max(count, 1.0) for name, (value, count) in sums.items()}


def gather_texts(accelerator: Accelerator, text: str) -> str:
    """What every process has to say, those that differ from the first said after it. All must call it."""
    if accelerator.num_processes == 1:
        return text
    return "; ".join(dict.fromkeys(gather_object([text])))

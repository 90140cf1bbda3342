"""What the processes of one run tell each other after a step: one clock, one will to stop, and the losses of all.

One message a step carries all of it, so that what is logged, skipped and saved is the global batch's, whichever process
writes it down.
"""
# W processes, P names of parts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    sums: Sums = field(default_factory=dict)  # what `parts` are the means of


@dataclass(frozen=True)
class Agreement:
    """The longest clock of all processes, whether any of them is asked to stop, and the step's loss and parts."""

    seconds: float
    stopping: bool
    loss: float
    parts: dict[str, float]


def agree(
    accelerator: Accelerator, names: Sequence[str], seconds: float, stopping: bool, loss: float, sums: Sums
) -> Agreement:
    """What holds for all processes; `names` are those that `sums` may have in any of them, in one order.

    The loss is the mean over processes, whose gradients are averaged; a part's is its sum over all images by their
    number, as in one process with all of them. A part that no process has is absent.
    """
    if accelerator.num_processes == 1:
        return Agreement(seconds, stopping, loss, means(sums))
    own = [seconds, float(stopping), loss]
    for name in names:
        own += [*sums.get(name, (0.0, 0.0)), float(name in sums)]
    everybody = accelerator.gather(torch.tensor([own], dtype=torch.float64, device=accelerator.device)).cpu()
    told = everybody[:, 3:].sum(0).view(-1, 3).tolist()  # (P, 3)
    total = {name: (value, count) for name, (value, count, present) in zip(names, told, strict=True) if present}
    return Agreement(
        seconds=float(everybody[:, 0].max()),
        stopping=bool(everybody[:, 1].any()),
        loss=float(everybody[:, 2].mean()),
        parts=means(total),
    )


def means(sums: Sums) -> dict[str, float]:
    """Each part's mean over its images; 0 where it has none."""
    return {name: value / max(count, 1.0) for name, (value, count) in sums.items()}


def gather_texts(accelerator: Accelerator, text: str) -> str:
    """What every process has to say, those that differ from the first said after it. All must call it."""
    if accelerator.num_processes == 1:
        return text
    return "; ".join(dict.fromkeys(gather_object([text])))

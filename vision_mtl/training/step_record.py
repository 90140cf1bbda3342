"""What a step of training leaves behind: its numbers, and how far training has come."""

from __future__ import annotations

from dataclasses import dataclass, field

Sums = dict[str, tuple[float, float]]  # name of a shown loss -> its sum over images, and the number of images


@dataclass
class Progress:
    """How far training has come. A checkpoint holds and restores it."""

    step: int = 0
    seconds: float = 0.0  # of training alone
    images_seen: int = 0  # over all processes
    skipped: int = 0  # steps without an update, because their loss or gradient was not finite
    skipped_in_a_row: int = 0


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one step, on the CPU: what is logged.

    `loss` is the loss that was minimised, `shown` the mean loss of each pretext and task in its own unit, `sums` what
    those means are of. `balance` holds the weights and cosines of a balancing, if there is one.
    """

    step: int
    loss: float
    shown: dict[str, float]
    gradient_norm: float
    learning_rate: float
    balance: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None  # why the step was skipped, if it was
    is_latest: bool = True  # whether the model has the weights after this step; else later steps were taken already
    sums: Sums = field(default_factory=dict)


def means(sums: Sums) -> dict[str, float]:
    """Return the mean of each shown loss over its images; 0 where it has none."""
    return {name: value / max(count, 1.0) for name, (value, count) in sums.items()}

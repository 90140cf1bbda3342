"""Records of training: the numbers of one step, and the progress of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

Sums = dict[str, tuple[float, float]]  # name of a shown loss -> its sum over images, and the number of images


@dataclass
class Progress:
    """The progress of a run. Checkpoints hold it."""

    step: int = 0
    seconds: float = 0.0  # of training, not counting hooks
    images_seen: int = 0  # over all processes
    skipped: int = 0  # steps without an update, because their loss or gradient was not finite
    skipped_in_a_row: int = 0
    forward_rows: int = 0  # images, views and damaged instances that went through the backbone, over all processes


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one step, on the CPU, to be logged.

    `loss` is the minimised loss, `shown` the mean loss of each pretext and task in its own unit, `sums` the sums and
    counts of these means. `balance` holds the weights and cosines of the balancing, if there is one. `forward_rows` is
    as in `Progress`, for this step.
    """

    step: int
    loss: float
    shown: dict[str, float]
    gradient_norm: float
    learning_rate: float
    balance: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None  # the reason, if the step was skipped
    is_latest: bool = True  # False: later steps have changed the weights already
    sums: Sums = field(default_factory=dict)
    forward_rows: int = 0


def means(sums: Sums) -> dict[str, float]:
    """Return the mean of each shown loss over its images; 0 where it has none."""
    return {name: value / max(count, 1.0) for name, (value, count) in sums.items()}

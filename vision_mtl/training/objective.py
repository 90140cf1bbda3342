"""What a step minimises, and which images it takes.

A feed gives a step's micro-batches. An objective turns one into the model's input with a request for each head
(`prepare`), and the predictions into losses (`measure`). The two are apart so that several objectives can share one
pass of the model.

From image to update: a batch of the feed -> `Prepared` -> predictions -> `StepLoss` (here), then `PendingStep` and
`StepRecord` (`training/step_guard.py`, `training/step_record.py`).
"""
# B images in the micro-batch, b rows of one request

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vision_mtl.data.pool import Pool
from vision_mtl.models.request import Request
from vision_mtl.training.step_record import Sums, means

Predictions = Mapping[str, list[Tensor]]


@dataclass(frozen=True)
class Prepared:
    """A micro-batch made ready for the model, whose arguments are `images`, `requests` and `drop_draw`.

    `images` (B, C, H, W), damaged or not; `drop_draw` (B,) in [0, 1) is for what the decoder drops; `share` is the
    micro-batch's share of the step's images. `data` is the objective's own: what it needs to measure the predictions.
    """

    images: Tensor
    requests: Sequence[Request]
    drop_draw: Tensor
    share: float
    data: Any = None


@dataclass(frozen=True)
class StepLoss:
    """The losses of one micro-batch.

    `losses` are minimised: by name, the micro-batch's contribution to the step's mean (a scalar with its graph).
    `shown` are logged: by name, the sum over images of a loss in its own unit, and their number; both detached.
    """

    losses: dict[str, Tensor]
    shown: dict[str, tuple[Tensor, Tensor]]
    rows: int = 0

    @property
    def total(self) -> Tensor:
        """The sum of the losses, a scalar: what is minimised where nothing balances them."""
        return torch.stack(list(self.losses.values())).sum()

    def means(self) -> dict[str, float]:
        """Return the mean of each shown loss."""
        return means(sum_shown([self]))


class Objective(Protocol):
    """`names` are the losses that a step may have, `shown` those that are logged."""

    @property
    def names(self) -> Sequence[str]:
        """The names that `StepLoss.losses` may have."""

    @property
    def shown(self) -> Sequence[str]:
        """The names that `StepLoss.shown` may have, the same ones in every process, in one order."""

    def prepare(self, batch: Any, share: float = 1.0) -> Prepared:
        """Damage, or merely gather, the batch's images; say which head predicts from which rows."""

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float) -> StepLoss:
        """Return the losses of the predictions; `progress` is the share of training done, for schedules."""


class Feed(Protocol):
    """The batches of a run, each a pure function of the step."""

    @property
    def pool(self) -> Pool:
        """The images that a step's indices count."""

    def at(self, step: int, num_micro_batches: int) -> list[tuple[Any, float]]:
        """Return the step's micro-batches on the device, and the share of the step's images that each has."""

    @property
    def images_per_step(self) -> int:
        """Images of a step, over all processes."""

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the step's `indices` (B,) in the pool and `images` (B, C, H, W) on the CPU, kept if the step
        breaks."""

    def close(self) -> None:
        """End what the feed runs beside the training."""


def step_loss(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    share: float = 1.0,
    layout: torch.memory_format = torch.contiguous_format,
    progress: float = 0.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> StepLoss:
    """Pass one micro-batch through the model and return its losses.

    `autocast` gives the model's precision. Damage and losses are outside of it: colours and blur are products, which
    it would take in bfloat16, and targets were off by up to 3 units of ab.
    """
    prepared = objective.prepare(batch, share)
    with autocast():
        predictions = model(prepared.images.to(memory_format=layout), prepared.requests, prepared.drop_draw)
    return objective.measure(predictions, prepared, progress)


def sum_shown(losses: Sequence[StepLoss]) -> Sums:
    """Return each shown loss's sum over several micro-batches and its number of images, in one transfer from the
    device."""
    sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for loss in losses:
        for name, entry in loss.shown.items():
            sums.setdefault(name, []).append(entry)
    if not sums:
        return {}
    totals = [torch.stack([sum(s for s, _ in entries), sum(c for _, c in entries)]) for entries in sums.values()]
    return {name: (value, count) for name, (value, count) in zip(sums, torch.stack(totals).tolist(), strict=True)}

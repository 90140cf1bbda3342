"""Objectives and feeds: the losses that a step minimises, and its images.

A feed returns a step's micro-batches. An objective turns one into the model's input with a request for each head
(`prepare`), and the predictions into losses (`measure`). These are two methods so that several objectives can share one
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
from vision_mtl.models.passes import Shown
from vision_mtl.models.request import Request
from vision_mtl.training.step_record import Sums, means

Predictions = Mapping[str, list[Tensor]]


@dataclass(frozen=True)
class Prepared:
    """The model's input for one micro-batch: `images`, `requests` and `drop_draw`.

    `images` (B, C, H, W), damaged or not; `drop_draw` (B,) in [0, 1] decides what the decoder drops; `share` is the
    micro-batch's share of the step's images. `data` holds what the objective needs to measure the predictions,
    `shown` which images the rows show (`models/passes.py`).
    """

    images: Tensor
    requests: Sequence[Request]
    drop_draw: Tensor
    share: float
    data: Any = None
    shown: Shown | None = None


@dataclass(frozen=True)
class StepLoss:
    """The losses of one micro-batch.

    `losses` are minimised: name -> the micro-batch's contribution to the step's mean, a scalar with its graph.
    `shown` are logged: name -> the sum over images of a loss in its own unit and the number of images, both detached.
    `rows` is the number of images that the model got.
    """

    losses: dict[str, Tensor]
    shown: dict[str, tuple[Tensor, Tensor]]
    rows: int = 0

    @property
    def total(self) -> Tensor:
        """The sum of the losses, a scalar; minimised if there is no balancing."""
        return torch.stack(list(self.losses.values())).sum()

    def means(self) -> dict[str, float]:
        """Return the mean of each shown loss."""
        return means(sum_shown([self]))


class Objective(Protocol):
    """The losses of a run. `names` are the ones that a step may minimise, `shown` the ones that it may log."""

    @property
    def names(self) -> Sequence[str]:
        """The names that `StepLoss.losses` may have."""

    @property
    def shown(self) -> Sequence[str]:
        """The names that `StepLoss.shown` may have, in the same order in every process."""

    def prepare(self, batch: Any, share: float = 1.0) -> Prepared:
        """Return the model's input: the images, damaged or not, and which head predicts from which rows."""

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float) -> StepLoss:
        """Return the losses of the predictions; `progress` in [0, 1] is the share of training done, for schedules."""


class Feed(Protocol):
    """The batches of a run, each a pure function of the step."""

    @property
    def pool(self) -> Pool:
        """The images that a step's indices refer to."""

    def at(self, step: int, num_micro_batches: int) -> list[tuple[Any, float]]:
        """Return the step's micro-batches on the device, each with its share of the step's images."""

    def smallest_part(self, num_micro_batches: int) -> int:
        """Return the number of images in the smallest micro-batch of this process; 0: there are fewer than parts."""

    @property
    def images_per_step(self) -> int:
        """The number of images of a step, over all processes."""

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the step's `indices` (B,) in the pool and `images` (B, C, H, W), saved if its loss is not finite."""

    def close(self) -> None:
        """Stop the feed's threads."""


def step_loss(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    share: float = 1.0,
    layout: torch.memory_format = torch.contiguous_format,
    progress: float = 0.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> StepLoss:
    """Return the losses of one micro-batch after a forward pass of the model.

    `autocast` sets the model's precision only. Damage and losses stay in float32: colour conversion and blur are matrix
    products, and in bfloat16 their targets were wrong by up to 3 units of ab.
    """
    prepared = objective.prepare(batch, share)
    with autocast():
        predictions = model(
            prepared.images.to(memory_format=layout), prepared.requests, prepared.drop_draw, prepared.shown
        )
    return objective.measure(predictions, prepared, progress)


def sum_shown(losses: Sequence[StepLoss]) -> Sums:
    """Return the sums and image counts of shown losses over micro-batches, with one transfer from the device."""
    sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for loss in losses:
        for name, entry in loss.shown.items():
            sums.setdefault(name, []).append(entry)
    if not sums:
        return {}
    totals = [
        torch.stack([add_up([value for value, _ in entries]), add_up([count for _, count in entries])])
        for entries in sums.values()
    ]
    return {name: (value, count) for name, (value, count) in zip(sums, torch.stack(totals).tolist(), strict=True)}


def add_up(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of one or more tensors of one shape, added in order."""
    return torch.as_tensor(sum(tensors))

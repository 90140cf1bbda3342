"""What a step minimises, and what it looks at.

An objective turns a batch into inputs of the shared model with requests for its heads (`prepare`), and the predictions
into losses (`measure`). The two are apart so that several objectives can share one pass of the model. A feed gives the
batches of a step.
"""
# B images in the batch, b rows of one request

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.models.shared import Request
from vision_mtl.training.process_sync import Sums, means

Predictions = Mapping[str, list[Tensor]]


@dataclass(frozen=True)
class Prepared:
    """A batch made ready for one pass: `inputs` (B, C, H, W), `chance` (B,) in [0, 1) for what the decoder drops.

    `data` is the objective's own: what it needs to measure the predictions.
    """

    inputs: Tensor
    requests: list[Request]
    chance: Tensor
    data: Any


@dataclass(frozen=True)
class StepLoss:
    """`losses` are minimised: by name, this part's contribution to the step's mean (a scalar with its graph).

    `parts` are shown: by name, the sum over the part's images of a loss in its own unit, and their number; both
    detached.
    """

    losses: dict[str, Tensor]
    parts: dict[str, tuple[Tensor, Tensor]]
    rows: int = 0

    @property
    def total(self) -> Tensor:
        """The sum of the losses, a scalar: what is minimised where nothing balances them."""
        return torch.stack(list(self.losses.values())).sum()

    def means(self) -> dict[str, float]:
        """Each part's mean loss."""
        return means(sum_parts([self]))


class Objective(Protocol):
    """`names` are the losses that a step may have, `shown` the parts."""

    names: Sequence[str]

    @property
    def shown(self) -> Sequence[str]:
        """The names that `StepLoss.parts` may have, the same ones in every process, in one order."""

    def prepare(self, batch: Any) -> Prepared:
        """Damage, or merely gather, the batch's images; say which head answers which rows."""

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float) -> StepLoss:
        """Losses of the predictions; `progress` is the share of training done, for schedules."""


class Feed(Protocol):
    """The batches of a run: a pure function of the step, so that a resumed run sees what an uninterrupted one would.

    `pool` holds the images, to name them.
    """

    pool: Pool

    def at(self, step: int, num_parts: int) -> list[tuple[Any, float]]:
        """The step's batch in `num_parts` parts on the device, and each part's share of it."""

    @property
    def images_per_step(self) -> int:
        """Images of a step, over all processes."""

    def evidence(self, step: int) -> dict[str, Tensor]:
        """The step's `indices` (B,) in the pool and `images` (B, C, H, W) on the CPU, kept if the step breaks."""

    def close(self) -> None:
        """End what the feed runs beside the training."""


def step_loss(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    layout: torch.memory_format = torch.contiguous_format,
    progress: float = 0.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> StepLoss:
    """One pass of the model over one part of a step's batch.

    `autocast` gives the model's precision. Damage and losses are outside of it: colours and blur are products, which
    it would take in bfloat16, and targets were off by up to 3 units of ab.
    """
    prepared = objective.prepare(batch)
    with autocast():
        predictions = model(prepared.inputs.to(memory_format=layout), prepared.requests, prepared.chance)
    return objective.measure(predictions, prepared, progress)


def sum_parts(losses: Sequence[StepLoss]) -> Sums:
    """Each part's sum over the images of several measurements and their number, in one transfer from the device."""
    sums: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for loss in losses:
        for name, entry in loss.parts.items():
            sums.setdefault(name, []).append(entry)
    if not sums:
        return {}
    totals = [torch.stack([sum(s for s, _ in entries), sum(c for _, c in entries)]) for entries in sums.values()]
    return {name: (value, count) for name, (value, count) in zip(sums, torch.stack(totals).tolist(), strict=True)}


@dataclass(frozen=True)
class Together:
    """Several objectives in one pass: their inputs stand one after the other in one batch.

    `members` maps a name to an objective; the batch is a mapping of the same names. Raises `UserError` if two of them
    have a loss of the same name. A part that an earlier member may have as well is shown with its member's name before
    its own.
    """

    members: Mapping[str, Objective]
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        names = [name for member in self.members.values() for name in member.names]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"the name {min(twice)!r} is taken by another part of the training: rename the task.")
        object.__setattr__(self, "names", names)

    def prepare(self, batch: Mapping[str, Any]) -> Prepared:
        """Each member's inputs, one after the other."""
        parts = {name: self.members[name].prepare(own) for name, own in batch.items()}
        requests, start = [], 0
        for part in parts.values():
            requests += [replace(r, rows=_shifted(r.rows, start)) for r in part.requests]
            start += len(part.inputs)
        inputs = torch.cat([part.inputs for part in parts.values()])
        return Prepared(inputs, requests, torch.cat([part.chance for part in parts.values()]), parts)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float) -> StepLoss:
        """The members' losses side by side."""
        found = [self.members[n].measure(predictions, part, progress) for n, part in prepared.data.items()]
        losses = {name: value for loss in found for name, value in loss.losses.items()}
        labels = self._labels()
        parts = {
            labels[member, name]: value
            for member, loss in zip(prepared.data, found, strict=True)
            for name, value in loss.parts.items()
        }
        return StepLoss(losses, parts, sum(loss.rows for loss in found))

    @property
    def shown(self) -> Sequence[str]:
        """Every member's parts, as they are called here."""
        return list(self._labels().values())

    def _labels(self) -> dict[tuple[str, str], str]:
        """(member, its part) -> what it is called here."""
        labels: dict[tuple[str, str], str] = {}
        for member, objective in self.members.items():
            taken = set(labels.values())
            labels |= {(member, name): f"{member}.{name}" if name in taken else name for name in objective.shown}
        return labels


def _shifted(rows: slice | Tensor, start: int) -> slice | Tensor:
    return slice(rows.start + start, rows.stop + start) if isinstance(rows, slice) else rows + start


@dataclass(frozen=True)
class TogetherFeed:
    """The feeds of `Together`'s members, step by step."""

    members: Mapping[str, Feed]

    def at(self, step: int, num_parts: int) -> list[tuple[dict[str, Any], float]]:
        """Parts that hold one part of every member, with the first one's share."""
        columns = [feed.at(step, num_parts) for feed in self.members.values()]
        rows = zip(*columns, strict=True)
        return [(dict(zip(self.members, (batch for batch, _ in row), strict=True)), row[0][1]) for row in rows]

    @property
    def pool(self) -> Pool:
        """The members have one pool."""
        return next(iter(self.members.values())).pool

    @property
    def images_per_step(self) -> int:
        """Of all members."""
        return sum(feed.images_per_step for feed in self.members.values())

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Every member's, its name before the key."""
        return {f"{n}.{key}": v for n, feed in self.members.items() for key, v in feed.evidence(step).items()}

    def close(self) -> None:
        """Close every member."""
        for feed in self.members.values():
            feed.close()

"""Joint training: several objectives in one pass of the model, and their feeds (those of stage `joint`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.models.passes import Shown
from vision_mtl.models.request import Request
from vision_mtl.training.objective import Feed, Objective, Predictions, Prepared, StepLoss

TASKS = "tasks"  # the member with the labelled images


@dataclass(frozen=True)
class JointObjective:
    """Several objectives in one pass of the model, which gets their images concatenated.

    `members` maps names to objectives; a batch maps the same names to (batch, share of the member's step). If two
    members may show a loss of the same name, the later one's is prefixed with its member's name. Raises `UserError` if
    two members minimise losses of the same name.
    """

    members: Mapping[str, Objective]
    names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        names = [name for member in self.members.values() for name in member.names]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"the name {min(twice)!r} is taken by another loss of the training: rename the task.")
        object.__setattr__(self, "names", names)

    def prepare(self, batch: Mapping[str, tuple[Any, float]], share: float = 1.0) -> Prepared:
        """Prepare each member's images and concatenate them."""
        members = {name: self.members[name].prepare(*own) for name, own in batch.items()}
        requests: list[Request] = []
        start = 0
        for member in members.values():
            requests += [replace(r, rows=_shifted(r.rows, start)) for r in member.requests]
            start += len(member.images)
        images = torch.cat([member.images for member in members.values()])
        drop_draw = torch.cat([member.drop_draw for member in members.values()])
        parts = [member.shown for member in members.values()]
        known = [part for part in parts if part is not None]
        shown = Shown.join(known) if len(known) == len(parts) else None
        return Prepared(images, requests, drop_draw, share, members, shown)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float) -> StepLoss:
        """Return the losses of all members."""
        found = [self.members[n].measure(predictions, own, progress) for n, own in prepared.data.items()]
        losses = {name: value for loss in found for name, value in loss.losses.items()}
        labels = self._labels()
        shown = {
            labels[member, name]: value
            for member, loss in zip(prepared.data, found, strict=True)
            for name, value in loss.shown.items()
        }
        return StepLoss(losses, shown, sum(loss.rows for loss in found))

    @property
    def shown(self) -> Sequence[str]:
        """The shown losses of all members, by their names in the joint training."""
        return list(self._labels().values())

    def _labels(self) -> dict[tuple[str, str], str]:
        """Return (member, shown loss) -> its name in the joint training."""
        labels: dict[tuple[str, str], str] = {}
        for member, objective in self.members.items():
            taken = set(labels.values())
            labels |= {(member, name): f"{member}.{name}" if name in taken else name for name in objective.shown}
        return labels


def _shifted(rows: slice | Tensor, start: int) -> slice | Tensor:
    return slice(rows.start + start, rows.stop + start) if isinstance(rows, slice) else rows + start


@dataclass(frozen=True)
class JointFeed:
    """The feeds of a `JointObjective`'s members, step by step."""

    members: Mapping[str, Feed]

    def at(self, step: int, num_micro_batches: int) -> list[tuple[dict[str, tuple[Any, float]], float]]:
        """Return micro-batches that each combine one of every member, with the first member's share."""
        columns = [feed.at(step, num_micro_batches) for feed in self.members.values()]
        rows = zip(*columns, strict=True)
        return [(dict(zip(self.members, row, strict=True)), row[0][1]) for row in rows]

    def smallest_part(self, num_micro_batches: int) -> int:
        """Return the number of images in the smallest micro-batch; 0: a member has fewer images than parts."""
        parts = [feed.smallest_part(num_micro_batches) for feed in self.members.values()]
        return sum(parts) if all(parts) else 0

    @property
    def pool(self) -> Pool:
        """The pool that the members share."""
        return next(iter(self.members.values())).pool

    @property
    def images_per_step(self) -> int:
        """The number of images of a step, over all members and processes."""
        return sum(feed.images_per_step for feed in self.members.values())

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the evidence of every member, with keys `MEMBER.KEY`."""
        return {f"{n}.{key}": v for n, feed in self.members.items() for key, v in feed.evidence(step).items()}

    def close(self) -> None:
        """Close every member's feed."""
        for feed in self.members.values():
            feed.close()

"""Contract of a balancing: it receives the losses of a step and leaves gradients on the parameters.

A step may come in micro-batches: `add` is called once for each, then `finish`. A loss without a label in the step is
absent from `losses`; its head, and everything else that only this loss trains, keeps `grad` None. The user's fixed
weight (`tasks.NAME.weight`) multiplies a loss's whole term before anything else; `equal` refuses it.

To add a method that weights the losses, copy `fixed.py` or `uncertainty.py`.
"""
# T losses, P shared parameters (scalars)

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.registry import Registry
from vision_mtl.training.balancing.conflicts import Conflicts
from vision_mtl.training.balancing.processes import average_gradients

Backward = Callable[..., Any]  # accelerate's: takes the scalar, and `retain_graph` as torch's does


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One loss to minimise, with its fixed `weight`. Names are unique and contain no dot.

    Raises `UserError` for a negative weight.
    """

    name: str
    weight: float = 1.0  # the user's, fixed
    regression: bool = False  # the loss is a squared error; else a cross-entropy

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise UserError(f"the weight of {self.name!r} must be 0 or more; found {self.weight}.")


class Balancing(nn.Module):
    """Base of every method. Its parameters are trained with the model's; checkpoints hold its buffers.

    `shared` are the parameters that all losses train, `rest` the model's other parameters. The module is not part of
    the model, so DDP does not wrap it; the caller moves it to the model's device. Raises `ValueError` for names that
    are empty or not unique.
    """

    # True: `finish` averages every gradient over the processes, so all micro-batches, the last one too, skip DDP's sync
    averages_gradients: ClassVar[bool] = False

    step: Tensor  # (): the number of finished steps

    def __init__(self, terms: Sequence[LossTerm], shared: Sequence[nn.Parameter], rest: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.terms = {term.name: term for term in terms}
        if not terms or len(self.terms) < len(terms):
            raise ValueError(f"losses must be named, each once; found {[term.name for term in terms]}")
        self.shared = [p for p in shared if p.requires_grad]
        self.rest = [p for p in rest if p.requires_grad]
        self.conflicts = Conflicts(list(self.terms), self.shared)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        """Add the gradients of one micro-batch.

        `losses` maps the names present in it to scalars. `scale` is the micro-batch's share of the step, so that the
        sum of loss times scale over all micro-batches is the step's loss: where they have equally many rows, a loss is
        the mean over them. `backward` is accelerate's. Raises `UserError` for an unknown name.
        """
        for name in losses:
            if name not in self.terms:
                raise unknown("loss", name, self.terms)
        if losses:
            self._add(losses, scale, backward)

    def finish(self) -> None:
        """End the step: the optimiser may then use `.grad` of the model and of this module."""
        self._finish()
        average_gradients(list(self.parameters()))
        self.step += 1

    def scalars(self) -> dict[str, float]:
        """Return the values to log: `weight.NAME` if the method has weights, `cosine.A.B` as last measured."""
        weights = {f"weight.{name}": value for name, value in self.weights().items()}
        return weights | self.conflicts.scalars()

    def weights(self) -> dict[str, float]:
        """Return what each loss or its gradient is multiplied by now; empty if the method has no such numbers."""
        return {}

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


BALANCINGS: Registry[type[Balancing]] = Registry("balance", "vision_mtl.training.balancing")

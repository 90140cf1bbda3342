"""What a balancing is: losses of the objectives in, gradients out. Which compromise it strikes is all that differs.

A step may come in parts (accumulated gradients): `add` once a part, then `finish`. An objective without a label in the
step is absent: it is not in `losses`, and its head, like anything else that only it would train, keeps `grad` None. An
objective's own fixed weight (`tasks.NAME.weight`) multiplies its whole term before anything else; `equal` refuses it.

To add a method that weighs losses by numbers, copy `fixed.py` or `uncertainty.py`.
"""
# T objectives, P shared parameters (scalars)

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
    """One loss to minimise. Names are unique and hold no dot."""

    name: str
    weight: float = 1.0  # the user's, fixed
    regression: bool = False  # the loss is a squared error; else a cross-entropy

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise UserError(f"the weight of {self.name!r} must be 0 or more; found {self.weight}.")


class Balancing(nn.Module):
    """Base of every method. Its parameters are trained beside the model's, its buffers are saved in checkpoints.

    `shared` are the parameters that the objectives compete for, `rest` the model's others. The module stands beside the
    model, never inside what several processes wrap, and must be moved to the model's device like it. Raises
    `ValueError` for a name that is empty or there twice.
    """

    # True: `finish` averages every gradient over the processes itself, so all parts, the last too, go without sync
    averages_gradients: ClassVar[bool] = False

    def __init__(
        self, objectives: Sequence[LossTerm], shared: Sequence[nn.Parameter], rest: Sequence[nn.Parameter]
    ) -> None:
        super().__init__()
        self.objectives = {objective.name: objective for objective in objectives}
        if not objectives or len(self.objectives) < len(objectives):
            raise ValueError(f"objectives must be named, each once; found {[o.name for o in objectives]}")
        self.shared = [p for p in shared if p.requires_grad]
        self.rest = [p for p in rest if p.requires_grad]
        self.conflicts = Conflicts(list(self.objectives), self.shared)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        """Take one part of a step.

        `losses` maps the objectives present in this part to scalars, `scale` is the part's share of the step (1 /
        number of equal parts): over all parts, the sum of loss times scale is the objective's loss of the step. With
        equally many rows in every part a loss is the mean over them. `backward` is accelerate's. Without a loss
        nothing happens. Raises `UserError` for an objective that is not one of ours.
        """
        for name in losses:
            if name not in self.objectives:
                raise unknown("objective", name, self.objectives)
        if losses:
            self._add(losses, scale, backward)

    def finish(self) -> None:
        """End the step: afterwards `.grad` of the model and of this module is what the optimiser may use."""
        self._finish()
        average_gradients(list(self.parameters()))
        self.step += 1

    def figures(self) -> dict[str, float]:
        """For logs: `weight.NAME` where the method has weights, `cosine.A.B` of the last measurement, if any."""
        weights = {f"weight.{name}": value for name, value in self.weights().items()}
        return weights | self.conflicts.figures()

    def weights(self) -> dict[str, float]:
        """What each objective's loss or gradient is multiplied by now; empty where the method has no such number."""
        return {}

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError


BALANCINGS: Registry[type[Balancing]] = Registry("balance", "vision_mtl.training.balancing")

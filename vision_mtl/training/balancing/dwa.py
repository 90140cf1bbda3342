"""Dynamic weight average: objectives whose loss falls slowest get the most weight.

Liu, Johns and Davison, "End-to-end multi-task learning with attention", 2019, https://arxiv.org/abs/1803.10704, eq. 7.
Differs from the paper: losses are averaged over `window` steps, not over an epoch, because the instances of several
tasks and sizes are mixed; an objective without a loss in a window keeps its last mean and its last rate.
"""
# T objectives

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing.contract import BALANCINGS, Backward, LossTerm
from vision_mtl.training.balancing.processes import average
from vision_mtl.training.balancing.weighted_sum import WeightedSum


@BALANCINGS.register("dwa")
class DynamicWeightAverage(WeightedSum):
    """total = sum_t w_t lambda_t L_t; lambda = T softmax(rate / temperature), rate_t = mean loss / the one before.

    Raises `UserError` for an option that is not above 0.
    """

    def __init__(
        self,
        objectives: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        temperature: float = 2.0,  # the larger, the more even the weights; 2: from the paper
        window: int = 100,  # steps that a loss is averaged over before the weights change
    ) -> None:
        super().__init__(objectives, shared, rest)
        for name, value in {"temperature": temperature, "window": window}.items():
            if not value > 0:
                raise UserError(f"balance.kwargs.{name} of 'dwa' must be above 0; found {value!r}.")
        self.temperature, self.window = temperature, int(window)
        for name in ("sums", "counts", "previous"):  # (T,) of this window's losses, its steps with one, the last mean
            self.register_buffer(name, torch.zeros(len(objectives)))
        self._present: set[int] = set()  # objectives seen in a part of this step
        self.register_buffer("rates", torch.ones(len(objectives)))  # (T,)

    def term(self, name: str, loss: Tensor) -> Tensor:
        """The loss times its current weight."""
        return loss * self._lambdas()[list(self.objectives).index(name)].to(loss)

    def weights(self) -> dict[str, float]:
        """w_t lambda_t."""
        pairs = zip(self.objectives.values(), self._lambdas().tolist(), strict=True)
        return {objective.name: objective.weight * value for objective, value in pairs}

    def _lambdas(self) -> Tensor:
        return len(self.rates) * torch.softmax(self.rates / self.temperature, dim=0)

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        super()._add(losses, scale, backward)
        for index, name in enumerate(self.objectives):
            if name in losses:
                self.sums[index] += losses[name].detach() * scale
                self._present.add(index)

    def _finish(self) -> None:
        super()._finish()
        self.counts[list(self._present)] += 1
        self._present.clear()
        if (int(self.step) + 1) % self.window == 0:
            self._close_window()

    def _close_window(self) -> None:
        average(self.sums)
        average(self.counts)
        seen = self.counts > 0
        means = torch.where(seen, self.sums / self.counts, self.previous)
        known = seen & (self.previous > 0)  # 0 until an objective has had one window
        self.rates = torch.where(known, means / self.previous, self.rates)
        self.previous = means
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)

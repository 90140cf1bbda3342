"""Homoscedastic uncertainty: each objective learns how noisy it is, and noisy ones count less.

Kendall, Gal and Cipolla, 2018, https://arxiv.org/abs/1705.07115, eq. 7 (regression) and 10 (classification), with
s = log sigma^2, which the authors train because it cannot divide by zero (sec. 3.2).
Differs from the paper: a fixed weight multiplies an objective's whole term, so it moves no s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.contract import BALANCINGS, LossTerm
from vision_mtl.training.balancing.weighted_sum import WeightedSum


@BALANCINGS.register("uncertainty")
class Uncertainty(WeightedSum):
    """total = sum_t w_t (c_t exp(-s_t) L_t + s_t / 2), c_t = 1/2 for a squared error and 1 for a cross-entropy.

    The s_t are parameters `log_variance_NAME` of shape (): one each, so that an absent objective's has no gradient,
    and without axes, so that the optimiser does not decay them.
    """

    def __init__(
        self,
        objectives: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        initial: float = 0.0,  # log variance s that every objective starts from; 0: a weight of 1, or 1/2
    ) -> None:
        super().__init__(objectives, shared, rest)
        for name in self.objectives:
            self.register_parameter(f"log_variance_{name}", nn.Parameter(torch.tensor(float(initial))))

    def term(self, name: str, loss: Tensor) -> Tensor:
        """The weighted loss, without the price of claiming noise."""
        return self._factor(name) * torch.exp(-self.get_parameter(f"log_variance_{name}")) * loss

    def finish(self) -> None:
        """Add the price, s_t / 2: once a step, in however many parts and processes the objective was present."""
        super().finish()
        for name, objective in self.objectives.items():
            log_variance = self.get_parameter(f"log_variance_{name}")
            if log_variance.grad is not None:
                log_variance.grad += objective.weight / 2

    def weights(self) -> dict[str, float]:
        """w_t c_t exp(-s_t)."""
        precisions = {n: float(torch.exp(-self.get_parameter(f"log_variance_{n}").detach())) for n in self.objectives}
        return {n: o.weight * self._factor(n) * precisions[n] for n, o in self.objectives.items()}

    def _factor(self, name: str) -> float:
        return 0.5 if self.objectives[name].regression else 1.0

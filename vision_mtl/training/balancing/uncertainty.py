"""Homoscedastic uncertainty: each loss has a learned variance, and a loss with a larger variance has less weight.

Kendall, Gal and Cipolla, 2018, https://arxiv.org/abs/1705.07115, eq. 7 (regression) and 10 (classification), with
s = log sigma^2, which the authors train because it avoids a division by zero (sec. 3.2).
Differs from the paper: a fixed weight multiplies a loss's whole term, so it does not change the s that is learned.
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

    The s_t are parameters `log_variance_NAME` of shape (). Each loss has a separate one, so an absent loss's gets no
    gradient; they have no axes, so the optimiser does not decay them.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        initial: float = 0.0,  # initial log variance s of every loss; 0: a weight of 1, or 1/2 for a squared error
    ) -> None:
        super().__init__(terms, shared, rest)
        for name in self.terms:
            self.register_parameter(f"log_variance_{name}", nn.Parameter(torch.tensor(float(initial))))

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return c_t exp(-s_t) times the loss, both scalars; `finish` adds s_t / 2."""
        return self._factor(name) * torch.exp(-self.get_parameter(f"log_variance_{name}")) * loss

    def finish(self) -> None:
        """End the step; add the gradient of s_t / 2 once, however many micro-batches and processes had the loss."""
        super().finish()
        for name, term in self.terms.items():
            log_variance = self.get_parameter(f"log_variance_{name}")
            if log_variance.grad is not None:
                log_variance.grad += term.weight / 2

    def weights(self) -> dict[str, float]:
        """Return w_t c_t exp(-s_t)."""
        precisions = {n: float(torch.exp(-self.get_parameter(f"log_variance_{n}").detach())) for n in self.terms}
        return {n: term.weight * self._factor(n) * precisions[n] for n, term in self.terms.items()}

    def _factor(self, name: str) -> float:
        return 0.5 if self.terms[name].regression else 1.0

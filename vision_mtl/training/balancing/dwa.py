"""Dynamic weight average: the loss that falls slowest gets the largest weight.

Liu, Johns and Davison, "End-to-end multi-task learning with attention", 2019, https://arxiv.org/abs/1803.10704, eq. 7.
Differs from the paper: losses are averaged over `window` steps instead of an epoch, because batches mix images of
several tasks whose epochs differ; a loss that is absent from a window keeps its last mean and rate.
"""
# T losses

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
    """total = sum_t w_t lambda_t L_t; lambda = T softmax(rate / temperature), rate_t = mean loss / previous mean.

    Raises `UserError` for an argument that is not above 0.
    """

    sums: Tensor  # (T,) of the losses in this window
    counts: Tensor  # (T,) steps of this window that had the loss
    previous: Tensor  # (T,) mean losses of the last window
    rates: Tensor  # (T,)

    def __init__(
        self,
        terms: Sequence[LossTerm],
        shared: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        temperature: float = 2.0,  # the larger, the more even the weights; 2: from the paper
        window: int = 100,  # steps that a loss is averaged over before the weights change
    ) -> None:
        super().__init__(terms, shared, rest)
        for name, value in {"temperature": temperature, "window": window}.items():
            if not value > 0:
                raise UserError(f"balance.kwargs.{name} of 'dwa' must be above 0; found {value!r}.")
        self.temperature, self.window = temperature, int(window)
        for name in ("sums", "counts", "previous"):
            self.register_buffer(name, torch.zeros(len(terms)))
        self._present: set[int] = set()  # losses in any micro-batch of this step
        self.register_buffer("rates", torch.ones(len(terms)))

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return lambda_t times the loss, both scalars."""
        return loss * self._lambdas()[list(self.terms).index(name)].to(loss)

    def weights(self) -> dict[str, float]:
        """Return w_t lambda_t."""
        pairs = zip(self.terms.values(), self._lambdas().tolist(), strict=True)
        return {term.name: term.weight * value for term, value in pairs}

    def _lambdas(self) -> Tensor:
        return len(self.rates) * torch.softmax(self.rates / self.temperature, dim=0)

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        super()._add(losses, scale, backward)
        for index, name in enumerate(self.terms):
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
        known = seen & (self.previous > 0)  # 0 before the first window that has the loss
        self.rates = torch.where(known, means / self.previous, self.rates)
        self.previous = means
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)

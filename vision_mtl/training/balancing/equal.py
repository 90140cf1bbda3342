"""Equal weights: minimise the sum of the losses.

The baseline that careful comparisons find hard to beat: Kurin et al., "In defense of the unitary scalarization for deep
multi-task learning", 2022, https://arxiv.org/abs/2201.04122.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing.contract import BALANCINGS, LossTerm
from vision_mtl.training.balancing.weighted_sum import WeightedSum


@BALANCINGS.register("equal")
class Equal(WeightedSum):
    """total = sum_t L_t. Raises `UserError` if a fixed weight is not 1, because it would be ignored."""

    def __init__(self, terms: Sequence[LossTerm], shared: Sequence[nn.Parameter], rest: Sequence[nn.Parameter]) -> None:
        super().__init__(terms, shared, rest)
        for term in terms:
            if term.weight != 1:
                raise UserError(
                    f"balance 'equal' gives every loss weight 1, but {term.name!r} asks for {term.weight:g}. "
                    "Give --balance.name fixed, or leave the weight out."
                )

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return the loss as it is."""
        return loss

    def weights(self) -> dict[str, float]:
        """Return 1 for every loss."""
        return dict.fromkeys(self.terms, 1.0)

"""Every objective counts the same: the sum of the losses.

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
    """total = sum_t L_t. Raises `UserError` if an objective's weight is not 1: it would go unheard."""

    def __init__(
        self, objectives: Sequence[LossTerm], shared: Sequence[nn.Parameter], rest: Sequence[nn.Parameter]
    ) -> None:
        super().__init__(objectives, shared, rest)
        for objective in objectives:
            if objective.weight != 1:
                raise UserError(
                    f"balance 'equal' gives every objective weight 1, but {objective.name!r} asks for "
                    f"{objective.weight:g}. Give --balance.name fixed, or leave the weight out."
                )

    def term(self, name: str, loss: Tensor) -> Tensor:
        """The loss itself."""
        return loss

    def weights(self) -> dict[str, float]:
        """All 1."""
        return dict.fromkeys(self.objectives, 1.0)

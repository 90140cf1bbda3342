"""The weights that the user gave: `tasks.NAME.weight`."""

from torch import Tensor

from vision_mtl.training.balancing.contract import BALANCINGS
from vision_mtl.training.balancing.weighted_sum import WeightedSum


@BALANCINGS.register("fixed")
class Fixed(WeightedSum):
    """total = sum_t w_t L_t."""

    def term(self, name: str, loss: Tensor) -> Tensor:
        """The loss itself; every term is multiplied by its objective's weight."""
        return loss

    def weights(self) -> dict[str, float]:
        """The given ones."""
        return {name: objective.weight for name, objective in self.objectives.items()}

"""Fixed weights: minimise the sum of the losses with the weights that the user gave (`tasks.NAME.weight`)."""

from torch import Tensor

from vision_mtl.training.balancing.contract import BALANCINGS
from vision_mtl.training.balancing.weighted_sum import WeightedSum


@BALANCINGS.register("fixed")
class Fixed(WeightedSum):
    """total = sum_t w_t L_t."""

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return the loss as it is; `WeightedSum` multiplies every term by its fixed weight."""
        return loss

    def weights(self) -> dict[str, float]:
        """Return the given weights."""
        return {name: term.weight for name, term in self.terms.items()}

"""Base of the methods that weight the losses by numbers: one backward pass through their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vision_mtl.training.balancing.contract import Backward, Balancing


class WeightedSum(Balancing):
    """Minimises the sum, not the mean, of the terms of the losses present.

    So the gradient of a loss does not depend on which other losses have labels in the batch.
    """

    def term(self, name: str, loss: Tensor) -> Tensor:
        """Return the term (a scalar) that the loss (a scalar) adds to the sum, before its fixed weight."""
        raise NotImplementedError

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        if self.conflicts.due(int(self.step)):
            self.conflicts.measure(losses, scale)
        total = sum(self.term(name, loss) * self.terms[name].weight for name, loss in losses.items())
        backward(total * scale)

    def _finish(self) -> None:
        if self.conflicts.due(int(self.step)):
            self.conflicts.finish()

"""Methods that weigh losses by numbers: one backward pass through a sum, whatever the numbers are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vision_mtl.training.balancing.contract import Backward, Balancing


class WeightedSum(Balancing):
    """Base: the step's loss is the sum, not the mean, of the terms of the objectives present.

    So an objective's pull does not depend on which others happen to have labels in the batch.
    """

    def term(self, name: str, loss: Tensor) -> Tensor:
        """What the objective `name` adds to the sum, a scalar."""
        raise NotImplementedError

    def _add(self, losses: Mapping[str, Tensor], scale: float, backward: Backward) -> None:
        if self.conflicts.due(int(self.step)):
            self.conflicts.measure(losses, scale)
        total = sum(self.term(name, loss) * self.objectives[name].weight for name, loss in losses.items())
        backward(total * scale)

    def _finish(self) -> None:
        if self.conflicts.due(int(self.step)):
            self.conflicts.finish()

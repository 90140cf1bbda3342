"""The gradient matrix: the gradient of each loss on the shared parameters, a row each, in one reused buffer."""
# T losses, P shared parameters (scalars)

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.processes import any_process, average


class GradientMatrix:
    """`matrix` (T, P), float32 (float64 where the parameters are), with columns in the order of `shared`.

    `present[t]`: loss t has been added since `clear`. `has_gradient[i]`: some loss gave parameter i a gradient.
    """

    def __init__(self, num_rows: int, shared: Sequence[nn.Parameter]) -> None:
        self.shared = list(shared)
        self.sizes = [p.numel() for p in self.shared]
        dtype = torch.promote_types(torch.float32, self.shared[0].dtype)
        self.matrix = torch.zeros(num_rows, sum(self.sizes), dtype=dtype, device=self.shared[0].device)
        self.present = [False] * num_rows
        self.has_gradient = [False] * len(self.shared)

    def clear(self) -> None:
        """Set all gradients to zero, for the next step."""
        self.matrix.zero_()
        self.present = [False] * len(self.present)
        self.has_gradient = [False] * len(self.has_gradient)

    def add(self, row: int, gradients: Sequence[Tensor | None], scale: float = 1.0) -> None:
        """Add `scale` times the gradients, one for each shared parameter, to a row; None counts as zeros."""
        self.present[row] = True
        slots = self.matrix[row].split(self.sizes)
        for i, (slot, gradient) in enumerate(zip(slots, gradients, strict=True)):
            if gradient is not None:
                self.has_gradient[i] = True
                slot.view(gradient.shape).add_(gradient, alpha=scale)

    def average(self) -> None:
        """Average over processes; a loss that a process does not have counts as zeros there."""
        average(self.matrix)
        flags = any_process([*self.present, *self.has_gradient], self.matrix.device)
        self.present, self.has_gradient = flags[: len(self.present)], flags[len(self.present) :]

    def compact(self) -> Tensor:
        """Return the rows of the losses present, (T', P), moved up within the buffer. `clear` must follow."""
        kept = [row for row, present in enumerate(self.present) if present]
        for place, row in enumerate(kept):
            if place != row:
                self.matrix[place].copy_(self.matrix[row])
        return self.matrix[: len(kept)]

    def write(self, vector: Tensor) -> None:
        """Write a vector (P,) to `.grad` of the parameters that have a gradient, in each one's memory layout."""
        for parameter, values, has_gradient in zip(
            self.shared, vector.split(self.sizes), self.has_gradient, strict=True
        ):
            if has_gradient:
                parameter.grad = torch.empty_like(parameter).copy_(values.view(parameter.shape))

"""The objectives' gradients on the shared parameters, one row each, in a buffer that is allocated once."""
# T objectives, P shared parameters (scalars)

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.processes import average, on_any


class GradientMatrix:
    """`matrix` (T, P), float32 (float64 where the parameters are), columns in the order of `shared`.

    `present[t]` tells whether objective t was seen since `clear`, `reached[i]` whether anyone reached parameter i.
    """

    def __init__(self, num_rows: int, shared: Sequence[nn.Parameter]) -> None:
        self.shared = list(shared)
        self.sizes = [p.numel() for p in self.shared]
        dtype = torch.promote_types(torch.float32, self.shared[0].dtype)
        self.matrix = torch.zeros(num_rows, sum(self.sizes), dtype=dtype, device=self.shared[0].device)
        self.present = [False] * num_rows
        self.reached = [False] * len(self.shared)

    def clear(self) -> None:
        """Forget the step."""
        self.matrix.zero_()
        self.present = [False] * len(self.present)
        self.reached = [False] * len(self.reached)

    def add(self, row: int, gradients: Sequence[Tensor | None], scale: float = 1.0) -> None:
        """Add `scale` times the gradients, one for each shared parameter, to a row; None counts as zeros."""
        self.present[row] = True
        places = self.matrix[row].split(self.sizes)
        for i, (place, gradient) in enumerate(zip(places, gradients, strict=True)):
            if gradient is not None:
                self.reached[i] = True
                place.view(gradient.shape).add_(gradient, alpha=scale)

    def average(self) -> None:
        """Mean over processes; an objective that a process did not see counts as zeros there."""
        average(self.matrix)
        flags = on_any([*self.present, *self.reached], self.matrix.device)
        self.present, self.reached = flags[: len(self.present)], flags[len(self.present) :]

    def compact(self) -> Tensor:
        """The rows of the objectives present, (T', P), moved up within the buffer: no second buffer. Then `clear`."""
        kept = [row for row, present in enumerate(self.present) if present]
        for place, row in enumerate(kept):
            if place != row:
                self.matrix[place].copy_(self.matrix[row])
        return self.matrix[: len(kept)]

    def write(self, vector: Tensor) -> None:
        """(P,) -> `.grad` of the shared parameters that anyone reached, in each parameter's own memory layout."""
        for parameter, part, reached in zip(self.shared, vector.split(self.sizes), self.reached, strict=True):
            if reached:
                parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))

"""A request to the shared model: the rows of a batch that one head predicts."""
# b rows of one request, H W pixels, h w token grid

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

HiddenTokens = Callable[[tuple[int, int]], int | None]  # grid (h, w) -> number; see `Pretext.hidden_tokens`


@dataclass(frozen=True)
class Request:
    """Rows of a batch for the head called `name`.

    A pretext's rows are a slice; `mask` (b, 1, H, W) bool is True where pixels are hidden, None without hidden pixels.
    `hidden_tokens` returns the number of hidden tokens per row for a grid (h, w), where it is known and the same for
    all rows. A task's rows are (b,) int64, in any order, and may overlap those of other tasks. `part` tells
    several requests of one head apart.
    """

    name: str
    rows: slice | Tensor
    mask: Tensor | None = None
    is_task: bool = False
    hidden_tokens: HiddenTokens | None = None
    part: str = ""

    @property
    def key(self) -> str:
        """The key of the prediction in the model's output."""
        key = f"task:{self.name}" if self.is_task else self.name
        return f"{key}:{self.part}" if self.part else key

    @property
    def span(self) -> slice:
        """The rows of a pretext; raises `TypeError` for the rows of a task, which are no slice."""
        if not isinstance(self.rows, slice):
            raise TypeError(f"rows of {self.key} must be a slice; found {type(self.rows).__name__}")
        return self.rows

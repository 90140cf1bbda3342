"""What the shared model is asked for: rows of a batch that one head predicts from."""
# b rows of one request, H W pixels, h w token grid

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

HiddenTokens = Callable[[tuple[int, int]], int | None]  # of a grid (h, w); see `Pretext.hidden_tokens`


@dataclass(frozen=True)
class Request:
    """Rows of a batch for the head called `name`.

    A pretext's rows are a slice; `mask` (b, 1, H, W) bool is True where pixels are hidden, None where nothing is.
    `hidden_tokens` gives the number of tokens of a grid (h, w) that each row hides, where all rows hide as many and
    that is known. A task's rows are (b,) int64, in any order, and may overlap another task's.
    """

    name: str
    rows: slice | Tensor
    mask: Tensor | None = None
    is_task: bool = False
    hidden_tokens: HiddenTokens | None = None

    @property
    def key(self) -> str:
        """The name of the prediction."""
        return f"task:{self.name}" if self.is_task else self.name

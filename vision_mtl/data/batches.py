"""Which images a step sees: each image once an epoch, in an order drawn from (seed, epoch), not remembered."""
# n images of the pool that are trained on, B images of a step

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.rng import Keys


class Batches:
    """`at(step)` is a pure function, so a resumed run sees what an uninterrupted one would.

    Batches run on across epochs: none is short and no image is dropped. `batch_size` is this process's share; process
    `rank` of `world_size` takes its slice of the global batch. With `weights` (n,), 0 or more and not all 0, an epoch
    is n images as before, each in proportion to its weight: as often as that says, rounded up or down by chance
    (systematic sampling: Madow, 1949). Raises `ValueError` without an image.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        weights: Tensor | None = None,
    ) -> None:
        if len(indices) == 0 or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"need images, a batch of 1 or more and a rank below {world_size}; "
                f"found {len(indices)}, {batch_size}, {rank}"
            )
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.expected = None if weights is None else weights.double() / weights.double().mean()  # (n,) times an epoch
        self.turns = 1 if self.expected is None else math.ceil(float(self.expected.max())) + 1
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """((B,) int64 indices in the pool, (B,) int64 epoch of each).

        With weights, an image's several turns in one epoch have numbers of their own, so its damage differs.
        """
        start = (step * self.world_size + self.rank) * self.batch_size
        places = torch.arange(start, start + self.batch_size)
        epochs = places // len(self.indices)
        within = places % len(self.indices)
        found, turn = torch.empty_like(places), torch.empty_like(places)
        for epoch in epochs.unique().tolist():
            rows = epochs == epoch
            found[rows], turn[rows] = (values[within[rows]] for values in self._order(epoch))
        return found, epochs * self.turns + turn

    def _draw_order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """(n,) indices in the order of the epoch, and (n,) which of its turns each is for its image."""
        indices, turn = self.indices, torch.zeros_like(self.indices)
        if self.expected is not None:
            start = Keys(self.seed, epoch, torch.zeros(1, dtype=torch.int64), name="weights").uniform().double()
            start = start + 2.0**-25  # half a step of the draw: no rounding of the sum can then lose the last image
            edges = (self.expected.cumsum(0) + start).floor().long()
            counts = edges.diff(prepend=edges.new_zeros(1))
            place = torch.arange(len(indices))
            turn = place - (edges - counts).repeat_interleave(counts)
            indices = indices.repeat_interleave(counts)
        bits = Keys(self.seed, epoch, indices, instance=turn, name="order").bits(1)[:, 0]
        order = torch.argsort(bits, stable=True)
        return indices[order], turn[order]

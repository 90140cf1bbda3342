"""Which images a step sees: each image once an epoch, in an order drawn from (seed, epoch), not remembered."""
# n images of the pool that are trained on, B images of a step

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.rng import Keys


class Batches:
    """`at(step)` is a pure function, so a resumed run sees what an uninterrupted one would.

    Batches run on across epochs: none is short and no image is dropped. `batch_size` is this process's share; process
    `rank` of `world_size` takes its slice of the global batch.
    """

    def __init__(self, indices: Tensor, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        if len(indices) == 0 or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"need images, a batch of 1 or more and a rank below {world_size}; "
                f"found {len(indices)}, {batch_size}, {rank}"
            )
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """((B,) int64 indices in the pool, (B,) int64 epoch of each)."""
        start = (step * self.world_size + self.rank) * self.batch_size
        places = torch.arange(start, start + self.batch_size)
        epochs = places // len(self.indices)
        within = places % len(self.indices)
        found = torch.empty_like(places)
        for epoch in epochs.unique().tolist():
            rows = epochs == epoch
            found[rows] = self._order(epoch)[within[rows]]
        return found, epochs

    def _draw_order(self, epoch: int) -> Tensor:
        bits = Keys(self.seed, epoch, self.indices, name="order").bits(1)[:, 0]
        return self.indices[torch.argsort(bits, stable=True)]

"""Batches of image indices: each image once per epoch, in an order that depends only on (seed, epoch)."""
# n training images, B images of a step

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.rng import Keys


class Batches:
    """The batches of a run: `at(step)` is a pure function, so a resumed run sees the same batches.

    Batches continue across epochs: none is short and no image is dropped. `batch_size` is this process's share; process
    `rank` of `world_size` takes its slice of the global batch. With `weights` (n,), 0 or more and not all 0, an epoch
    still has n images, each as often as its relative weight, randomly rounded up or down (systematic sampling: Madow,
    1949). Raises `ValueError` without an image.
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
        self.expected = None if weights is None else weights.double() / weights.double().mean()  # (n,) times per epoch
        self.max_repeats = 1 if self.expected is None else math.ceil(float(self.expected.max())) + 1
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return ((B,) int64 indices in the pool, (B,) int64 epoch of each).

        With weights, the repeats of an image in one epoch get distinct epoch numbers, so their damage differs.
        """
        start = (step * self.world_size + self.rank) * self.batch_size
        places = torch.arange(start, start + self.batch_size)
        epochs = places // len(self.indices)
        within = places % len(self.indices)
        found, repeat = torch.empty_like(places), torch.empty_like(places)
        for epoch in epochs.unique().tolist():
            rows = epochs == epoch
            found[rows], repeat[rows] = (values[within[rows]] for values in self._order(epoch))
        return found, epochs * self.max_repeats + repeat

    def _draw_order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return (n,) indices in the order of the epoch, and (n,) which repeat of its image each one is."""
        indices, repeat = self.indices, torch.zeros_like(self.indices)
        if self.expected is not None:
            start = Keys(self.seed, epoch, torch.zeros(1, dtype=torch.int64), name="weights").uniform().double()
            start = start + 2.0**-25  # half a step of the draw: rounding of the sum then never loses the last image
            edges = (self.expected.cumsum(0) + start).floor().long()
            counts = edges.diff(prepend=edges.new_zeros(1))
            place = torch.arange(len(indices))
            repeat = place - (edges - counts).repeat_interleave(counts)
            indices = indices.repeat_interleave(counts)
        bits = Keys(self.seed, epoch, indices, instance=repeat, name="order").bits(1)[:, 0]
        order = torch.argsort(bits, stable=True)
        return indices[order], repeat[order]

"""Batches of image indices for several tasks: a fixed cycle of slots, with separate epochs for each task.

The cycle is smooth weighted round-robin: each slot goes to the task furthest behind its share, so that every batch
contains the tasks in nearly their shares. From nginx, 2012,
https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1
"""
# T tasks, n labelled images of a task, L slots of a cycle, B images of a step

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys

CYCLE = 1024  # slots: shares are accurate to a thousandth


class TaskBatches:
    """The batches of several tasks: `at(step)` is a pure function, so a resumed run sees the same batches.

    `indices` maps a task to its labelled images (n,); an image may be in several. A task's share of the slots is
    proportional to n ** `temperature`: 1 is proportional to the sizes, 0 equal for all tasks. Each image of a task
    occurs once in each epoch of the task. `batch_size` is this process's share; process `rank` of `world_size` takes
    its slice of the global batch. Raises `UserError` for a temperature outside [0, 1], `ValueError` without an image.
    """

    def __init__(
        self,
        indices: Mapping[str, Tensor],
        batch_size: int,
        seed: int,
        temperature: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        empty = [task for task, rows in indices.items() if len(rows) == 0]
        if not indices or empty or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"need tasks with images, a batch of 1 or more and a rank below {world_size}; "
                f"found {list(indices)} (empty: {empty}), {batch_size}, {rank}"
            )
        if not 0 <= temperature <= 1:
            raise UserError(f"the temperature of the tasks' shares must lie in [0, 1]; found {temperature}.")
        self.tasks, self.indices = list(indices), dict(indices)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.counts = _slots([len(rows) ** temperature for rows in indices.values()])  # (T,) slots of a cycle
        self.cycle = _interleave(self.counts)  # (L,) the task of each slot
        used = torch.nn.functional.one_hot(self.cycle, len(self.tasks)).cumsum(0)  # (L, T)
        self._before = torch.cat((torch.zeros(1, len(self.tasks), dtype=torch.int64), used))  # (L + 1, T)
        self._order = lru_cache(maxsize=4 * len(self.tasks))(self._draw_order)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return ((B,) indices in the pool, (B,) epoch of the image's task, (B,) number of that task), all int64."""
        start = (step * self.world_size + self.rank) * self.batch_size
        slots = torch.arange(start, start + self.batch_size)
        tasks = self.cycle[slots % len(self.cycle)]
        occurrence = self._used_before(slots)[torch.arange(len(slots)), tasks]  # earlier slots of the same task
        size = torch.tensor([len(self.indices[task]) for task in self.tasks])[tasks]
        epochs, within = occurrence // size, occurrence % size
        found = torch.empty_like(slots)
        for number, epoch in torch.stack((tasks, epochs), 1).unique(dim=0).tolist():
            rows = (tasks == number) & (epochs == epoch)
            found[rows] = self._order(number, epoch)[within[rows]]
        return found, epochs, tasks

    def _used_before(self, slots: Tensor) -> Tensor:
        """Return (n, T): the number of slots of each task before each of the `slots` (n,)."""
        length = len(self.cycle)
        return (slots // length)[:, None] * torch.tensor(self.counts) + self._before[slots % length]

    def _draw_order(self, number: int, epoch: int) -> Tensor:
        task = self.tasks[number]
        bits = Keys(self.seed, epoch, self.indices[task], name=f"order/{task}").bits(1)[:, 0]
        return self.indices[task][torch.argsort(bits, stable=True)]


def _slots(sizes: list[float]) -> list[int]:
    """Return the slots of each task in a cycle, in proportion to `sizes` by largest remainder, at least one each."""
    length = max(CYCLE, len(sizes))
    exact = [size / sum(sizes) * length for size in sizes]
    counts = [max(1, int(share)) for share in exact]
    while sum(counts) != length:
        step = 1 if sum(counts) < length else -1
        able = [t for t in range(len(sizes)) if step > 0 or counts[t] > 1]
        counts[max(able, key=lambda t: step * (exact[t] - counts[t]))] += step
    return counts


def _interleave(counts: list[int]) -> Tensor:
    """Return (L,) int64 in which task t occurs `counts[t]` times, spread as evenly as possible."""
    weight = torch.tensor(counts)
    behind, cycle = torch.zeros_like(weight), torch.empty(sum(counts), dtype=torch.int64)
    for slot in range(len(cycle)):
        behind += weight
        cycle[slot] = behind.argmax()
        behind[cycle[slot]] -= len(cycle)
    return cycle

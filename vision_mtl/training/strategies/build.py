"""Chooses the strategy for the processes that a run was started with."""

from __future__ import annotations

from accelerate import Accelerator

from vision_mtl.training.strategies.contract import Strategy
from vision_mtl.training.strategies.data_parallel import DataParallel
from vision_mtl.training.strategies.sharded import Sharded
from vision_mtl.training.strategies.single_process import SingleProcess


def build_strategy(accelerator: Accelerator, shard: bool = False) -> Strategy:
    """Return the strategy for the accelerator's processes; `shard` shards the backbone where there are several."""
    if accelerator.num_processes == 1:
        return SingleProcess(accelerator)
    return Sharded(accelerator) if shard else DataParallel(accelerator)

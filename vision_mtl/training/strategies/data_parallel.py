"""Several processes, each with the full model and its share of the batch; DDP averages the gradients.

Li et al., "PyTorch distributed", 2020, https://arxiv.org/abs/2006.15704. The module is wrapped by accelerate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from vision_mtl.models.batch_norm import synchronise
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.balancing.processes import largest_of_processes
from vision_mtl.training.process_sync import Synced, gather_texts, sync_processes
from vision_mtl.training.step_record import StepRecord
from vision_mtl.training.strategies.contract import Strategy


class DataParallel(Strategy):
    """Trains a replica in each process. On GPUs, BatchNorm's statistics are over all processes."""

    alone = False

    def place(self, model: SharedModel, layout: torch.memory_format, balancing: Balancing | None) -> None:
        if self.accelerator.device.type == "cuda":
            synchronise(model)
            model.common_passes = lambda count: largest_of_processes(count, self.accelerator.device)
        super().place(model, layout, balancing)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        return self.accelerator.no_sync(wrapped)

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        return sync_processes(self.accelerator, names, seconds, stopping, records)

    def gather_texts(self, text: str) -> str:
        return gather_texts(text)

"""Several processes, each with the whole model and its part of the batch; DDP averages the gradients.

Li et al., "PyTorch distributed", 2020, https://arxiv.org/abs/2006.15704. The module is wrapped by accelerate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from vision_mtl.models.batch_norm import synchronise
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.process_sync import Synced, gather_texts, sync_processes
from vision_mtl.training.step_record import StepRecord
from vision_mtl.training.strategies.contract import Strategy


class DataParallel(Strategy):
    """A replica in each process. BatchNorm takes its statistics over all processes on GPUs."""

    alone = False

    def place(self, model: nn.Module, layout: torch.memory_format, balancing: Balancing | None) -> None:
        if self.accelerator.device.type == "cuda":
            synchronise(model)
        model.to(self.accelerator.device, memory_format=layout)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        return self.accelerator.no_sync(wrapped)

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        return sync_processes(self.accelerator, names, seconds, stopping, records)

    def gather_texts(self, text: str) -> str:
        return gather_texts(text)

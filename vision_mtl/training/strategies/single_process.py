"""One process with one device: nothing to share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.process_sync import Synced
from vision_mtl.training.step_record import StepRecord
from vision_mtl.training.strategies.contract import Strategy


class SingleProcess(Strategy):
    """The whole step in this process."""

    alone = True

    def place(self, model: nn.Module, layout: torch.memory_format, balancing: Balancing | None) -> None:
        model.to(self.accelerator.device, memory_format=layout)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        return Synced(seconds, stopping, list(records))

    def gather_texts(self, text: str) -> str:
        return text

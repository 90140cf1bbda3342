"""One process with one device, which takes the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from vision_mtl.training.process_sync import Synced
from vision_mtl.training.step_record import StepRecord
from vision_mtl.training.strategies.contract import Strategy


class SingleProcess(Strategy):
    """Takes the step in this process alone."""

    alone = True

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        return Synced(seconds, stopping, list(records))

    def gather_texts(self, text: str) -> str:
        return text

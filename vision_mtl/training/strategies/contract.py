"""What the training loop asks of the way a run is spread over processes.

The loop calls a strategy and does not know which one it has. `Strategy` holds what is the same wherever every process
has the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.options import Optim
from vision_mtl.training.process_sync import Synced
from vision_mtl.training.step_record import StepRecord


class Strategy:
    """Base of the strategies. The loop calls `check`, `place` and `wrap` once, in this order; the rest at every step.

    `alone`: the run is one process. Its loss is the step's, and it can undo a failed step and save without the others.
    `reads_late`: a GPU's losses may be read several steps later, because a step can be undone.
    `saves_together`: every process must take part in saving and scoring.
    """

    alone: ClassVar[bool]
    reads_late: ClassVar[bool] = True
    saves_together: ClassVar[bool] = False

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def check(self, optim: Optim, balancing: Balancing | None, compiled: bool) -> None:
        """Raise `UserError` for options that this strategy cannot serve."""

    def place(self, model: nn.Module, layout: torch.memory_format, balancing: Balancing | None) -> None:
        """Move the model to the device, in place, before the optimiser is built over its parameters."""
        raise NotImplementedError

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module that a step calls. The optimiser stays ours: checkpoints name its state themselves."""
        return self.accelerator.prepare_model(model)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        """Return a context in which backward passes add to the gradients without averaging them over processes."""
        raise NotImplementedError

    def average_gradients(self) -> None:
        """Average what the last backward pass has not averaged over the processes."""

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradients in place to a norm of at most `limit`; return the norm before, a scalar."""
        return nn.utils.clip_grad_norm_(parameters, limit)

    def whole_model(self, model: nn.Module) -> nn.Module:
        """Return the module that scores and pictures use; it has weights within `full_weights` and after `gather`."""
        return model

    @contextmanager
    def full_weights(self, model: nn.Module, keep: bool = True) -> Iterator[nn.Module]:
        """A context with `whole_model`, its weights gathered where `keep`. Every process must enter it."""
        yield self.whole_model(model)

    def gather(self) -> None:
        """Leave full weights in `whole_model` of every process, at the end of training. All must call it."""

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        """Return the clock, the wish to stop and the records that hold for all processes; see `sync_processes`."""
        raise NotImplementedError

    def gather_texts(self, text: str) -> str:
        """Return the texts of all processes, each different one once."""
        raise NotImplementedError

    def any(self, asked: bool) -> bool:
        """Whether it is so in this process, or in any where `saves_together`."""
        return asked

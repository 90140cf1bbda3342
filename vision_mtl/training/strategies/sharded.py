"""Several processes, each with its shard of the backbone (`runtime.shard`); FSDP gathers a block's weights as it runs.

Where full weights are needed (scores, pictures, checkpoints) all processes take part in gathering them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from vision_mtl.models.batch_norm import synchronise
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.balancing.processes import average_gradients, on_any
from vision_mtl.training.dtensors import clip_gradients, full_tensors, is_dtensor
from vision_mtl.training.options import Optim
from vision_mtl.training.process_sync import Synced, gather_texts, sync_processes
from vision_mtl.training.sharding import check_shard, hollow, shard_backbone
from vision_mtl.training.step_record import StepRecord
from vision_mtl.training.strategies.contract import Strategy


class Sharded(Strategy):
    """A shard of the backbone's weights, gradients and optimiser state in each process; decoder and heads whole.

    `whole` is a plain copy of the model for one process, which has no weights but between `gather` and `release`.
    """

    alone = False
    reads_late = False
    saves_together = True

    def check(self, optim: Optim, balancing: Balancing | None, compiled: bool) -> None:
        check_shard(optim, balancing, compiled)

    def place(self, model: nn.Module, layout: torch.memory_format, balancing: Balancing | None) -> None:
        device = self.accelerator.device
        if device.type == "cuda":
            synchronise(model)
        self.model, self.whole = model, hollow(model).to(device)
        shard_backbone(model, device)
        self.replicated = [p for p in model.parameters() if p.requires_grad and not is_dtensor(p)]
        if balancing is not None:  # it compares no gradients here, and would keep the full weights alive
            balancing.shared, balancing.rest, balancing.conflicts.shared = [], [], []

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def average_gradients(self) -> None:
        average_gradients(self.replicated)  # FSDP has averaged the others

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        return clip_gradients(parameters, limit)

    def whole_model(self, model: nn.Module) -> nn.Module:
        return self.whole

    @contextmanager
    def full_weights(self, model: nn.Module, keep: bool = True) -> Iterator[nn.Module]:
        self._gather(keep)
        yield self.whole
        for parameter in self.whole.parameters():
            parameter.data = parameter.data.new_empty(0)

    def gather(self) -> None:
        self._gather(keep=True)

    def sync(self, names: Sequence[str], seconds: float, stopping: bool, records: Sequence[StepRecord]) -> Synced:
        return sync_processes(self.accelerator, names, seconds, stopping, records)

    def gather_texts(self, text: str) -> str:
        return gather_texts(text)

    def any(self, asked: bool) -> bool:
        return on_any([asked], self.accelerator.device)[0]

    def _gather(self, keep: bool) -> None:
        """Give `whole` the present weights, where `keep`. All processes must call it."""
        own = self.model.state_dict()
        found = full_tensors(own, keep)
        if not keep:
            return
        for name, parameter in self.whole.named_parameters():
            parameter.data = found[name] if is_dtensor(own[name]) else found[name].clone()
        for name, buffer in self.whole.named_buffers():
            if name in found:
                buffer.copy_(found[name])

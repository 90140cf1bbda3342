"""Means over processes for what DDP does not average. In a run of one process nothing happens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn


def several_processes() -> bool:
    """Return whether the run has more than one process."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def average(tensor: Tensor) -> None:
    """Replace `tensor`, of any shape, in place, by its mean over processes."""
    if several_processes():
        distributed.all_reduce(tensor)
        tensor /= distributed.get_world_size()


def take_from_first(tensor: Tensor) -> None:
    """Replace `tensor`, of any shape, in place, by that of the first process, so that random draws agree."""
    if several_processes():
        distributed.broadcast(tensor, src=0)


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether it is set in any process."""
    if not several_processes():
        return list(flags)
    counts = torch.tensor(flags, dtype=torch.int64, device=device)
    distributed.all_reduce(counts)
    return [bool(count) for count in counts.tolist()]


def largest_of_processes(number: int, device: torch.device) -> int:
    """Return the largest `number` of all processes."""
    if not several_processes():
        return number
    found = torch.tensor(number, dtype=torch.int64, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average `.grad` over processes. None counts as zeros if another process has a gradient, else it stays None."""
    if not parameters or not several_processes():
        return
    has_gradient = any_process([p.grad is not None for p in parameters], parameters[0].device)
    for parameter in [p for p, some in zip(parameters, has_gradient, strict=True) if some]:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        average(parameter.grad)

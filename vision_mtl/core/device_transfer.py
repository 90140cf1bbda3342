"""Copies tensors to the device that computes, without waiting for it.

A copy from pageable memory to a GPU waits until the GPU has done all of its work so far. So constants are copied once
and kept there, and what changes with the step goes through pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=512)
def constant(values: Hashable, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A number, or tuples of numbers, as a tensor of any shape on the device. Not to be changed in place."""
    return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=512)
def table(make: Callable[..., Any], args: tuple[Hashable, ...], device: torch.device, dtype: torch.dtype) -> Any:
    """The tensor of any shape that `make(*args)` gives, or the tuple of them, as `dtype` on the device. Likewise."""
    made = make(*args)
    if isinstance(made, Tensor):
        return made.to(device, dtype)
    return tuple(tensor.to(device, dtype) for tensor in made)


def send(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of any shape on the device: itself if it is there, else a copy that is under way."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class DeviceTransfer:
    """A copy to a CUDA device that is under way."""

    tensor: Tensor
    done: torch.cuda.Event

    def finish(self) -> Tensor:
        """Return the tensor, of any shape, for the device's work from here on; the CPU does not wait."""
        stream = torch.cuda.current_stream(self.tensor.device)
        stream.wait_event(self.done)
        self.tensor.record_stream(stream)
        return self.tensor


class TransferStream:
    """Copies pinned tensors to a CUDA device in a stream of its own, while the device computes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def begin(self, pinned: Tensor) -> DeviceTransfer:
        """Begin to copy a tensor of any shape."""
        with torch.cuda.stream(self.stream):
            tensor = pinned.to(self.device, non_blocking=True)
            return DeviceTransfer(tensor, self.stream.record_event())

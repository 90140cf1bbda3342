"""Copies tensors to a GPU without synchronising with it.

A copy from pageable memory waits until the GPU has finished all queued work. So constants are copied once and cached on
the device, and tensors that change at each step go through pinned memory.
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
    """Return a number, or nested tuples of numbers, as a cached tensor on the device. Do not change it in place."""
    return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=512)
def table(make: Callable[..., Any], args: tuple[Hashable, ...], device: torch.device, dtype: torch.dtype) -> Any:
    """Return the tensor, or tuple of tensors, of `make(*args)` as `dtype`, cached on the device.

    Do not change it in place.
    """
    made = make(*args)
    if isinstance(made, Tensor):
        return made.to(device, dtype)
    return tuple(tensor.to(device, dtype) for tensor in made)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of any shape on the device; the copy to a GPU is asynchronous."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class DeviceTransfer:
    """A copy to a CUDA device that may not have finished yet."""

    tensor: Tensor
    done: torch.cuda.Event

    def finish(self) -> Tensor:
        """Return the tensor, of any shape. The current stream waits for the copy; the CPU does not."""
        stream = torch.cuda.current_stream(self.tensor.device)
        stream.wait_event(self.done)
        self.tensor.record_stream(stream)
        return self.tensor


class TransferStream:
    """Copies pinned tensors to a CUDA device in a separate stream, while the device computes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def begin(self, pinned: Tensor) -> DeviceTransfer:
        """Start the copy of a pinned tensor of any shape."""
        with torch.cuda.stream(self.stream):
            tensor = pinned.to(self.device, non_blocking=True)
            return DeviceTransfer(tensor, self.stream.record_event())

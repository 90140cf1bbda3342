"""Gather, distribute, clip and group DTensors: tensors of which each process holds a shard (`runtime.shard`).

A plain tensor passes through everything here unchanged. A DTensor is recognised by its method `full_tensor`, not by its
class, whose import takes a second that most runs need not pay.
"""
# W processes, G groups of parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def is_dtensor(tensor: Tensor) -> bool:
    """Whether each process holds a shard of it, of any shape."""
    return hasattr(tensor, "full_tensor")


def full_tensors(
    tensors: Mapping[str, Tensor], keep: bool = True, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Return the tensors, of any shape, with DTensors gathered one by one, on `device` (None: where they are).

    All processes must call it. The result is empty where not `keep`.
    """
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if is_dtensor(tensor) else tensor
        if keep:
            found[name] = full.to(device) if is_dtensor(tensor) else tensor
    return found


def distribute_like(owner: Tensor, tensor: Tensor) -> Tensor:
    """Return a full `tensor`, of any shape, sharded as `owner` is. Every process must hold the full tensor."""
    if not is_dtensor(owner):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(owner.device), owner.device_mesh, owner.placements, src_data_rank=None)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load full tensors of any shape, by name, into a model, sharded or not.

    Raises `RuntimeError` where names or shapes differ.
    """
    own = model.state_dict()
    model.load_state_dict({name: distribute_like(own.get(name, tensor), tensor) for name, tensor in tensors.items()})


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients of any shape, in place, to a norm over all processes of at most `limit`; return the norm before,
    ().

    A gradient that is not sharded must be the same in every process.
    """
    sharded = [p.grad.to_local() for p in parameters if is_dtensor(p.grad)]
    replicated = [p.grad for p in parameters if not is_dtensor(p.grad)]
    if not sharded and not replicated:
        return torch.zeros(())
    squares = [nn.utils.get_total_norm(some) ** 2 for some in (sharded, replicated) if some]
    if sharded:
        distributed.all_reduce(squares[0])
    norm = torch.stack(squares).sum().sqrt()
    scale = torch.clamp(limit / (norm + 1e-6), max=1.0)  # as torch's own clipping does
    torch._foreach_mul_([*sharded, *replicated], scale)
    return norm


def separate(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parameter groups with DTensors in groups of their own: an optimiser's kernel takes one kind.

    `numbers` in a group are its parameters' places in the groups as they were: a checkpoint names them so.
    """
    found, start = [], 0
    for group in groups:
        numbered = list(enumerate(group["params"], start))
        start += len(numbered)
        for kind in (True, False):
            of_kind = [(number, p) for number, p in numbered if is_dtensor(p) == kind]
            if of_kind:
                numbers, parameters = zip(*of_kind, strict=True)
                found.append({**group, "params": list(parameters), "numbers": list(numbers)})
    return found


def numbers_of(optimiser: torch.optim.Optimizer) -> list[int]:
    """For each parameter of the optimiser, in its order, the place that a checkpoint names it by."""
    found: list[int] = []
    for group in optimiser.param_groups:
        found += group.get("numbers", range(len(found), len(found) + len(group["params"])))
    return found

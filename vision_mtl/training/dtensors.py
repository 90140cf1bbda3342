"""Gather, distribute, clip and group DTensors: tensors of which each process holds a shard (`runtime.shard`).

Every function here accepts plain tensors as well. A DTensor is recognised by its method `full_tensor`, because
importing the class takes a second that most runs do not need to spend.
"""
# W processes, G groups of parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether a tensor of any shape is a DTensor."""
    return hasattr(tensor, "full_tensor")


def full_tensors(
    tensors: Mapping[str, Tensor], keep: bool = True, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Return the tensors, of any shape, with DTensors gathered one by one to `device` (None: the shards' device).

    All processes must call it. The result is empty where not `keep`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_dtensor(tensor):
            full = tensor.full_tensor()
            if keep:
                found[name] = full.to(device)
        elif keep:
            found[name] = tensor
    return found


def distribute_like(owner: Tensor, tensor: Tensor) -> Tensor:
    """Return a full `tensor`, of any shape, sharded like `owner`. Every process must hold the full tensor."""
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
    """Scale gradients in place so that their joint norm is at most `limit`; return the norm before, ().

    The norm is over all processes. A gradient that is not sharded must be the same in every process.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    sharded = [gradient.to_local() for gradient in gradients if is_dtensor(gradient)]
    replicated = [gradient for gradient in gradients if not is_dtensor(gradient)]
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
    """Return the parameter groups with DTensors in separate groups, because an optimiser's kernel cannot mix them.

    `numbers` in a group are its parameters' positions in the original groups: checkpoints name parameters by them.
    """
    found, start = [], 0
    for group in groups:
        numbered = list(enumerate(group["params"], start))
        start += len(numbered)
        for are_dtensors in (True, False):
            chosen = [(number, p) for number, p in numbered if is_dtensor(p) == are_dtensors]
            if chosen:
                numbers, parameters = zip(*chosen, strict=True)
                found.append({**group, "params": list(parameters), "numbers": list(numbers)})
    return found


def numbers_of(optimiser: torch.optim.Optimizer) -> list[int]:
    """Return for each parameter of the optimiser, in its order, the number that checkpoints name it by."""
    found: list[int] = []
    for group in optimiser.param_groups:
        found += group.get("numbers", range(len(found), len(found) + len(group["params"])))
    return found

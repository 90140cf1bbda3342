"""Tensors of which each process holds a part (`runtime.shard`; PyTorch's DTensor): gather, cut, clip, group them.

A tensor that is not cut passes through everything here as it is. DTensor is told by what it can do, not by its class,
whose import takes a second that most runs need not pay.
"""
# W processes, G groups of parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def is_dtensor(tensor: Tensor) -> bool:
    """Whether each process holds a part of it, of any shape."""
    return hasattr(tensor, "full_tensor")


def full_tensors(
    tensors: Mapping[str, Tensor], keep: bool = True, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """The same tensors, of any shape, those that are cut gathered one by one, on `device` (None: where they are).

    All processes must call it, those that do not `keep` the result, which is empty for them, too.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if is_dtensor(tensor) else tensor
        if keep:
            found[name] = whole.to(device) if is_dtensor(tensor) else tensor
    return found


def distribute_like(owner: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of a whole `tensor`, of any shape, cut as `owner` is; every process has it whole."""
    if not is_dtensor(owner):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(owner.device), owner.device_mesh, owner.placements, src_data_rank=None)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put whole tensors of any shape, by name, into a model, cut or not.

    Raises `RuntimeError` where names or shapes differ.
    """
    own = model.state_dict()
    model.load_state_dict({name: distribute_like(own.get(name, tensor), tensor) for name, tensor in tensors.items()})


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradients, of any shape, in place, so that their norm over all processes is at most `limit`; the norm
    before, ().

    A gradient that is not cut is taken to be the same in every process.
    """
    cut = [p.grad.to_local() for p in parameters if is_dtensor(p.grad)]
    kept = [p.grad for p in parameters if not is_dtensor(p.grad)]
    if not cut and not kept:
        return torch.zeros(())
    squares = [nn.utils.get_total_norm(some) ** 2 for some in (cut, kept) if some]
    if cut:
        distributed.all_reduce(squares[0])
    norm = torch.stack(squares).sum().sqrt()
    torch._foreach_mul_([*cut, *kept], torch.clamp(limit / (norm + 1e-6), max=1.0))  # as torch's own clipping does
    return norm


def separate(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of parameters, each as two where some are cut: an optimiser's kernel takes a list of one kind.

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

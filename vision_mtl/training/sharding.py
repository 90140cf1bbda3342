"""Shard a backbone's weights, gradients and optimiser state over the processes of a run, with PyTorch's `fully_shard`.

Zhao et al., "PyTorch FSDP", 2023, https://arxiv.org/abs/2304.11277; the idea is the third stage of ZeRO, Rajbhandari et
al., 2020, https://arxiv.org/abs/1910.02054. Each process keeps a shard of every tensor; the full weights of a block of
the backbone are gathered just before its forward or backward pass, and freed after it.
Differs from both: decoder and heads are replicated. They are small, and a process needs only the heads of its own
images, while every process must run a sharded module equally often.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Container
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.balancing.processes import any_process, largest_of_processes
from vision_mtl.training.balancing.weighted_sum import WeightedSum
from vision_mtl.training.options import Optim

LARGEST_UNIT = 1 / 8  # of the backbone's weights; a larger module is split into its children, where it has any
SMALLEST_UNIT = 1 / 256  # smaller modules are not worth a message: they are gathered for the whole step

Model = TypeVar("Model", bound=nn.Module)


def check_shard(optim: Optim, balancing: Balancing | None, compiled: bool) -> None:
    """Raise `UserError` for options that do not work with a sharded backbone."""
    wrong = None
    if optim.ema_decay:
        wrong = f"optim.ema_decay must be 0, as averaged weights are kept whole; found {optim.ema_decay:g}"
    elif compiled:
        wrong = "runtime.compile must be false; found true"
    elif balancing is not None and not isinstance(balancing, WeightedSum):
        wrong = "balance.name must be equal, fixed, uncertainty or dwa, as no process has whole gradients to compare; "
        wrong += f"found {getattr(balancing, 'name', type(balancing).__name__)}"
    elif balancing is not None and balancing.conflicts.every_steps:
        wrong = "balance.conflicts_every_steps must be 0, as no process has whole gradients to compare; "
        wrong += f"found {balancing.conflicts.every_steps}"
    if wrong:
        raise UserError(f"with runtime.shard, {wrong}. Leave one of the two out.")


def shard_backbone(model: SharedModel, device: torch.device) -> None:
    """Shard `model`'s backbone, in place, over all processes, and move the model to `device`."""
    from torch.distributed.device_mesh import init_device_mesh  # late: they take seconds to import
    from torch.distributed.fsdp import fully_shard

    # an in-place change of such a view would lose a gradient; benchmarks/cut_architectures.py finds no such case
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
    # other layouts cannot be sharded
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # the stub lacks memory_format
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for unit in fsdp_units(model.backbone):  # moved one by one, so that the device never holds the full backbone
        fully_shard(unit, mesh=mesh)
    fully_shard(model.backbone, mesh=mesh)  # the remaining parameters
    if len(model.fills):
        model.backbone.register_forward_pre_hook(_with_gradient, prepend=True)
    model.to(device)
    model.backbone.common_counts = lambda counts, most: _common(counts, most, device)
    model.common_passes = lambda count: largest_of_processes(count, device)


def _with_gradient(backbone: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make the images require a gradient in every process, as learned fills do in some: FSDP's order depends on it."""
    images, *others = inputs
    needs = images.requires_grad or not torch.is_grad_enabled()
    return (images if needs else images.detach().requires_grad_(), *others)


def copy_without_weights(model: Model) -> Model:
    """Return a copy of the model whose parameters have no elements; buffers are copied."""
    empty = {id(p): nn.Parameter(p.detach().new_empty(0), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def fsdp_units(backbone: Backbone) -> list[nn.Module]:
    """Return the modules to gather one at a time: the outermost with at most `LARGEST_UNIT` of the backbone's weights.

    Mostly blocks, or single layers where these are larger. A dry run on a blank image finds the modules that are
    called. Excluded are weights that a parent reads without calling their module, and weights shared by modules.
    """
    called: set[nn.Module] = set()
    modes = {module: module.training for module in backbone.modules()}
    hooks = [m.register_forward_pre_hook(lambda module, _: called.add(module)) for m in modes]
    blank = torch.zeros(1, backbone.in_chans, *backbone.image_size, device=backbone.mean.device)
    with torch.no_grad():
        backbone.eval()(blank)
    for hook in hooks:
        hook.remove()
    for module, mode in modes.items():
        module.training = mode
    owners = Counter(id(p) for _, p in backbone.named_parameters(remove_duplicate=False))
    alone = {m for m in called if all(owners[id(p)] == 1 for p in m.parameters())}
    return _units_within(backbone.model, alone, _size(backbone))


def _units_within(module: nn.Module, allowed: Container[nn.Module], total: int) -> list[nn.Module]:
    """Return the units among `allowed` within the module; `total` is the backbone's number of weights."""
    size = _size(module)
    if size < SMALLEST_UNIT * total:
        return []
    if size <= LARGEST_UNIT * total and module in allowed:
        return [module]
    inner = [unit for child in module.children() for unit in _units_within(child, allowed, total)]
    return inner or ([module] if module in allowed else [])


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _common(counts: list[int], most: int, device: torch.device) -> list[int]:
    """Return the numbers from 0 to `most` that are in the `counts` of any process, ascending."""
    present = set(counts)
    return [count for count, there in enumerate(any_process([n in present for n in range(most + 1)], device)) if there]

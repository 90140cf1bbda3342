"""Shard a backbone's weights, gradients and optimiser state over the processes of a run, with PyTorch's `fully_shard`.

Zhao et al., "PyTorch FSDP", 2023, https://arxiv.org/abs/2304.11277; the idea is the third stage of ZeRO, Rajbhandari et
al., 2020, https://arxiv.org/abs/1910.02054. Each process keeps a shard of every tensor; the full weights of a block of
the backbone are gathered just before it computes, and freed after.
Differs from both: decoder and heads are replicated. They are small, and which of them a process needs depends on its
images, while all processes must run what is sharded equally often.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Container

import torch
from torch import Tensor, distributed, nn

from vision_mtl.core.errors import UserError
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.training.balancing.contract import Balancing
from vision_mtl.training.balancing.processes import on_any
from vision_mtl.training.balancing.weighted_sum import WeightedSum
from vision_mtl.training.options import Optim

LARGEST = 1 / 8  # of the backbone's weights: gathered at once, at most, where its modules are that small
SMALLEST = 1 / 256  # smaller modules are not worth a message of their own: they are gathered for the whole step


def check_shard(optim: Optim, balancing: Balancing | None, compiled: bool) -> None:
    """Raise `UserError` for options that a sharded backbone cannot serve."""
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
    """Shard `model`'s backbone, in place, over all processes; the model is on `device` afterwards."""
    from torch.distributed.device_mesh import init_device_mesh  # late: they take seconds to import
    from torch.distributed.fsdp import fully_shard

    # where such a view were changed in place a gradient would be lost: benchmarks/cut_architectures.py finds none
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
    model.to(memory_format=torch.contiguous_format)  # no other layout can be sharded
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for part in parts(model.backbone):  # one after the other goes to the device, so that it never holds them all
        fully_shard(part, mesh=mesh)
    fully_shard(model.backbone, mesh=mesh)  # what is left of it
    if len(model.fills):
        model.backbone.register_forward_pre_hook(_with_gradient, prepend=True)
    model.to(device)
    model.backbone.common_counts = lambda counts, most: _common(counts, most, device)


def _with_gradient(backbone: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Have images need a gradient in every process: those with a learned fill do, and FSDP's order goes by that."""
    images, *others = inputs
    needs = images.requires_grad or not torch.is_grad_enabled()
    return (images if needs else images.detach().requires_grad_(), *others)


def hollow(model: nn.Module) -> nn.Module:
    """A copy whose parameters have no elements; buffers are copied."""
    empty = {id(p): nn.Parameter(p.detach().new_empty(0), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, empty)


def parts(backbone: Backbone) -> list[nn.Module]:
    """Modules of the backbone to gather one at a time: the outermost that are called and hold an eighth of it at most.

    Blocks, mostly; a layer where it is larger itself. What only its parent reads, uncalled, or what several modules
    share is in none of them. Found by a dry run on a blank image.
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
    return _parts(backbone.model, alone, _size(backbone))


def _parts(module: nn.Module, suited: Container[nn.Module], total: int) -> list[nn.Module]:
    """Those of `suited` within the module; `total` is the backbone's size."""
    size = _size(module)
    if size < SMALLEST * total:
        return []
    if size <= LARGEST * total and module in suited:
        return [module]
    inner = [part for child in module.children() for part in _parts(child, suited, total)]
    return inner or ([module] if module in suited else [])


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _common(counts: list[int], most: int, device: torch.device) -> list[int]:
    """The numbers, 0 to `most`, that are among the `counts` of any process, ascending."""
    present = set(counts)
    return [count for count, there in enumerate(on_any([n in present for n in range(most + 1)], device)) if there]

"""The last stage of a backbone, and freezing the layers before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

# name prefixes of modules after the last stage
AFTER = ("norm", "bn", "pool", "head", "fc", "classifier", "pre_logits")


def last_stage(model: nn.Module) -> nn.Module:
    """The module that computes the deepest features.

    That is the last entry of timm's `feature_info` if it holds a matrix; otherwise the last top-level child that holds
    one and is no norm, pool or head. If that child is most of the model (the single list of layers of a VGG), it is the
    child's last part.
    """
    named = dict(model.named_modules())
    listed = named.get(_deepest_feature(model))
    if listed is not None and _has_matrix(listed):
        return listed
    children = _stages(model)
    stage = children[-1]
    most = 2 * _size(stage) > sum(_size(child) for child in children)
    return _stages(stage)[-1] if most and isinstance(stage, nn.Sequential | nn.ModuleList) else stage


def _deepest_feature(model: nn.Module) -> str:
    info: Any = getattr(model, "feature_info", None)
    last = info[-1] if isinstance(info, list) and info else {}
    return str(last.get("module", "")) or "no module listed"


def _stages(module: nn.Module) -> list[nn.Module]:
    """The children that can be stages; the module itself if there are none."""
    children = [c for name, c in module.named_children() if _has_matrix(c) and not name.lower().startswith(AFTER)]
    return children or [module]


def _has_matrix(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def freeze(module: nn.Module, except_for: Sequence[nn.Parameter] = ()) -> list[nn.Module]:
    """Freeze `module` except for some parameters; return the modules to keep in eval mode, without their children.

    With no exception these are all modules, else those whose own parameters are all frozen: a frozen BatchNorm that
    kept averaging would change the output of the frozen layers. Children of such a module may still be trained (a ViT's
    own tokens are frozen, its last block is not), so eval mode must not be applied to them with their parent.
    """
    kept = {id(p) for p in except_for}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    if not kept:
        return list(module.modules())
    own = {m: list(m.parameters(recurse=False)) for m in module.modules()}
    return [m for m, parameters in own.items() if parameters and not any(p.requires_grad for p in parameters)]

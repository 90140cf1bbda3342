"""A backbone by depth: its last stage, and freezing what lies before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

BEYOND = ("norm", "bn", "pool", "head", "fc", "classifier", "pre_logits")  # beginnings of names after the last stage


def last_stage(model: nn.Module) -> nn.Module:
    """The module that gives the deepest features.

    The last entry of timm's own `feature_info`, if it holds a matrix; else the last top-level child that does and is no
    norm, pool or head, or that child's last part if it is most of the model (a VGG's one list of layers).
    """
    named = dict(model.named_modules())
    told = named.get(_deepest_feature(model))
    if told is not None and _has_matrix(told):
        return told
    children = _stages(model)
    stage = children[-1]
    most = 2 * _size(stage) > sum(_size(child) for child in children)
    return _stages(stage)[-1] if most and isinstance(stage, nn.Sequential | nn.ModuleList) else stage


def _deepest_feature(model: nn.Module) -> str:
    info: Any = getattr(model, "feature_info", None)
    last = info[-1] if isinstance(info, list) and info else {}
    return str(last.get("module", "")) or "none told"


def _stages(module: nn.Module) -> list[nn.Module]:
    """The children that may be stages; the module itself if none may."""
    children = [c for name, c in module.named_children() if _has_matrix(c) and not name.lower().startswith(BEYOND)]
    return children or [module]


def _has_matrix(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def freeze(module: nn.Module, except_for: Sequence[nn.Parameter] = ()) -> list[nn.Module]:
    """Stop training `module` but for some parameters; returns the modules that must stay in eval mode, each by itself.

    Those are all of them if nothing is left to train, else the ones whose own parameters are all frozen: a frozen
    BatchNorm that went on averaging would change what the frozen layers compute. What such a one holds may be trained
    (a ViT's own tokens are frozen, its last block is not), so its children are not meant with it.
    """
    kept = {id(p) for p in except_for}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    if not kept:
        return list(module.modules())
    own = {m: list(m.parameters(recurse=False)) for m in module.modules()}
    return [m for m, parameters in own.items() if parameters and not any(p.requires_grad for p in parameters)]

"""Which parameters the objectives share: all of the backbone's, or those of its last stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from vision_mtl.core.errors import unknown

SHARES = ("all", "last")
BEYOND = ("norm", "bn", "pool", "head", "fc", "classifier", "pre_logits")  # beginnings of names after the last stage


def shared_parameters(backbone: nn.Module, which: str) -> list[nn.Parameter]:
    """The trainable parameters of a timm model (or of what holds one as `.model`): `all`, or its `last` stage's.

    Raises `UserError` for another `which`.
    """
    if which not in SHARES:
        raise unknown("value of balance.shared", which, SHARES)
    model = getattr(backbone, "model", backbone)
    module = model if which == "all" else last_stage(model)
    return [p for p in module.parameters() if p.requires_grad]


def other_parameters(model: nn.Module, shared: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The trainable parameters of `model` that are not among `shared`."""
    kept = {id(p) for p in shared}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in kept]


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

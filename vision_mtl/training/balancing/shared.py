"""Which parameters the tasks share: the backbone's, or those of its last stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import nn

from vision_mtl.core.errors import unknown
from vision_mtl.models.depth import last_stage
from vision_mtl.training.balancing.options import Shared


def shared_parameters(backbone: nn.Module, which: Shared) -> list[nn.Parameter]:
    """Return the trainable parameters of a timm model (or of a module with one as `.model`): all, or the last stage's.

    Raises `UserError` for another `which`.
    """
    if which not in get_args(Shared):
        raise unknown("value of balance.shared", which, get_args(Shared))
    model = getattr(backbone, "model", backbone)
    module = model if which == "all" else last_stage(model)
    return [p for p in module.parameters() if p.requires_grad]


def other_parameters(model: nn.Module, shared: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return the trainable parameters of `model` that are not among `shared`."""
    kept = {id(p) for p in shared}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in kept]

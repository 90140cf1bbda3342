"""Which parameters the objectives share: all of the backbone's, or those of its last stage."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vision_mtl.core.errors import unknown
from vision_mtl.models.depth import last_stage

SHARES = ("all", "last")


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

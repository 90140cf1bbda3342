"""A backbone by depth: its parameters from shallow to deep, which of them are last, and freezing the rest.

The order is timm's own (`group_matcher(coarse=True)`): a group is a stage of a convolutional net or a block of a ViT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from timm.models import group_parameters
from torch import nn

from vision_mtl.models.backbone import Backbone

LATE_SHARE = 0.25  # of the groups: one stage of four, or three blocks of a ViT's twelve


def parameters_by_depth(backbone: Backbone) -> list[list[nn.Parameter]]:
    """The backbone's parameters, group by group, shallow to deep; trailing norms belong to the last group."""
    trunk = backbone.model
    named = dict(trunk.named_parameters())
    groups = [
        [named[n] for n in names] for _, names in sorted(group_parameters(trunk, trunk.group_matcher(True)).items())
    ]
    while len(groups) > 1 and all(p.ndim <= 1 for p in groups[-1]):  # a norm is no stage
        last = groups.pop()
        groups[-1] += last
    return groups


def late_parameters(backbone: Backbone) -> list[nn.Parameter]:
    """Those of the last quarter of the groups: the deepest stage, or the last blocks."""
    groups = parameters_by_depth(backbone)
    return [p for group in groups[-max(1, math.floor(LATE_SHARE * len(groups))) :] for p in group]


def freeze(module: nn.Module, except_for: Sequence[nn.Parameter] = ()) -> list[nn.Module]:
    """Stop training `module` but for some parameters; returns the submodules that must stay in eval mode.

    Those are all of them if nothing is left to train, else the ones whose own parameters are all frozen: a frozen
    BatchNorm that went on averaging would change what the frozen layers compute.
    """
    kept = {id(p) for p in except_for}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    if not kept:
        return [module]
    own = {m: list(m.parameters(recurse=False)) for m in module.modules()}
    return [m for m, parameters in own.items() if parameters and not any(p.requires_grad for p in parameters)]

"""Build AdamW with its parameter groups.

Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, https://arxiv.org/abs/1711.05101; the linear
scaling of the rate with the batch is Goyal et al., 2017, https://arxiv.org/abs/1706.02677, sec. 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from vision_mtl.training.dtensors import is_dtensor, separate
from vision_mtl.training.options import Optim

Kernel = Literal["auto", "fused", "foreach"]  # AdamW's implementation; auto: fused where the device has it


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return groups of trainable parameters with `weight_decay`, some with `lr_scale`, a factor of the learning rate.

    Matrices and convolution kernels decay; norms, biases and vectors (tokens, fills) do not. With `layer_decay` below 1
    the layers of `model.backbone.model`, in timm's order, get smaller learning rates the shallower they are (Clark et
    al., "ELECTRA", 2020, https://arxiv.org/abs/2003.10555, app. A; timm's `param_groups_layer_decay`).
    """
    layered: list[dict[str, Any]] = []
    if layer_decay < 1:
        layered = _layered_groups(model.get_submodule("backbone.model"), weight_decay, layer_decay)
    taken = {id(p) for group in layered for p in group["params"]}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in taken]
    plain = [p for name, p in named if _does_not_decay(name, p)]
    kept = {id(p) for p in plain}
    return [
        {"params": [p for _, p in named if id(p) not in kept], "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
        *layered,
    ]


def _does_not_decay(name: str, parameter: nn.Parameter) -> bool:
    return sum(length > 1 for length in parameter.shape) <= 1 or name.endswith("bias")


def _layered_groups(backbone: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    vectors = [name for name, p in backbone.named_parameters() if _does_not_decay(name, p)]
    groups = param_groups_layer_decay(backbone, weight_decay, vectors, layer_decay=layer_decay)
    return [{key: group[key] for key in ("params", "weight_decay", "lr_scale")} for group in groups]


def build_optimiser(
    model: nn.Module, optim: Optim, extra: Sequence[nn.Parameter] = (), kernel: Kernel = "auto"
) -> torch.optim.AdamW:
    """Return AdamW over the model's trainable parameters, at rate 0: the loop sets the rate before each step.

    `extra` parameters, such as the variances of a balancing, are trained too and do not decay.
    """
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay)
    if extra:
        groups.append({"params": list(extra), "weight_decay": 0.0})
    if any(is_dtensor(p) for p in model.parameters()):
        groups = separate(groups)
    fused = kernel != "foreach" and all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in model.parameters()
    )
    return torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, fused=fused, foreach=kernel == "foreach" or None)

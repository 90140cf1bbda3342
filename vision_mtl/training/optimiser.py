"""AdamW, its schedule, and how long training lasts.

Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, https://arxiv.org/abs/1711.05101; the linear
scaling of the rate with the batch is Goyal et al., 2017, https://arxiv.org/abs/1706.02677, sec. 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.dtensors import is_dtensor, separate

Kernel = Literal["auto", "fused", "foreach"]  # how AdamW computes; auto: fused where there is such a kernel
REFERENCE_BATCH = 256  # the learning rate is stated for this many images a step, as MAE and timm state it


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How a model is fitted. Training ends at `steps` or `max_seconds`, whichever comes first."""

    steps: int | None = None  # optimiser steps; given alone, there is no limit of time
    max_seconds: float | None = 150.0  # seconds of training, without the store, scoring and pictures
    batch_size: int = 64  # images a step, over all processes and accumulated parts together
    accumulate: int = 1  # parts that a step's batch is computed in, to save memory
    learning_rate: float = 4e-3  # for 256 images a step; the rate used is learning_rate * batch_size / 256
    weight_decay: float = 0.05  # AdamW's decoupled decay; none on norms, biases and tokens
    betas: tuple[float, float] = (
        0.9,
        0.95,
    )  # AdamW's decay of the averaged gradient and square, in [0, 1); 0.95: from MAE
    warmup_ratio: float = 0.1  # share of training in which the rate rises from 0; then it falls to 0 as a cosine
    clip_norm: float = 1.0  # largest norm of the gradient; 0: no clipping
    layer_decay: float = 1.0  # rate of each backbone layer relative to the next deeper one; 1: all alike
    non_finite: Literal["stop", "skip"] = "stop"  # what a loss or gradient that is no number does: end the run, or skip
    # the step, its weights and statistics untouched
    max_skipped: int = 3  # skipped steps in a row that are put up with; one more ends the run
    ema_decay: float = 0.0  # decay of the averaged weights that are scored and exported, for example 0.999; 0: none

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps is None or self.steps >= 1, "at least 1"),
            "max_seconds": (self.max_seconds is None or self.max_seconds > 0, "above 0"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "accumulate": (1 <= self.accumulate <= self.batch_size, "1 to batch_size"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "betas": (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)"),
            "warmup_ratio": (0 <= self.warmup_ratio < 1, "in [0, 1)"),
            "clip_norm": (self.clip_norm >= 0, "0 or more"),
            "layer_decay": (0 < self.layer_decay <= 1, "in (0, 1]"),
            "max_skipped": (self.max_skipped >= 0, "0 or more"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"optim.{name} must be {rule}; found {getattr(self, name)}.")
        if self.steps is None and self.max_seconds is None:
            raise UserError("training needs an end: give --optim.steps, --optim.max_seconds, or both.")

    @property
    def peak_rate(self) -> float:
        """The learning rate at the end of warm-up."""
        return self.learning_rate * self.batch_size / REFERENCE_BATCH

    def progress(self, step: int, seconds: float) -> float:
        """Share of training done, in [0, 1], after `step` steps and `seconds` of training time."""
        shares = [step / self.steps] if self.steps else []
        shares += [seconds / self.max_seconds] if self.max_seconds else []
        return min(max(shares), 1.0)

    def rate(self, progress: float) -> float:
        """The learning rate at a share of training: linear warm-up, then half a cosine to 0."""
        if progress < self.warmup_ratio:
            return self.peak_rate * progress / self.warmup_ratio
        rest = (progress - self.warmup_ratio) / (1 - self.warmup_ratio)
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * rest))


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups of trainable parameters with their decay, and `lr_scale` for the loop to multiply the rate by.

    Matrices and kernels decay; norms, biases and single vectors (tokens, fills) do not. With `layer_decay` below 1 the
    layers of `model.backbone.model`, in timm's own order, have smaller rates the shallower they are (Clark et al.,
    "ELECTRA", 2020, https://arxiv.org/abs/2003.10555, app. A; timm's `param_groups_layer_decay`).
    """
    trunk = model.backbone.model if layer_decay < 1 else None
    layered = _layered_groups(trunk, weight_decay, layer_decay) if trunk is not None else []
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


def _layered_groups(trunk: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    vectors = [name for name, p in trunk.named_parameters() if _does_not_decay(name, p)]
    groups = param_groups_layer_decay(trunk, weight_decay, vectors, layer_decay=layer_decay)
    return [{key: group[key] for key in ("params", "weight_decay", "lr_scale")} for group in groups]


def build_optimiser(
    model: nn.Module, optim: Optim, extra: Sequence[nn.Parameter] = (), kernel: Kernel = "auto"
) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters, at rate 0: the loop sets the rate before each step.

    `extra` are trained with them and do not decay (the variances of a balancing).
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

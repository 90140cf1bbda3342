"""BatchNorm in several processes: statistics of the whole step's images while they train, and its way back.

A process sees only its part of a step. On GPUs its statistics are computed over all parts, so that a step is the one
that a single process would take; PyTorch has no such layer for the CPU, where each process normalises by its own.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def synchronise(model: nn.Module) -> None:
    """Have every BatchNorm below `model`, in place, take its statistics over all processes; parameters stay the same.

    `model` itself must not be a BatchNorm.
    """
    for name, child in list(model.named_children()):
        setattr(model, name, convert_sync_batchnorm(child))


class LocalNorm(nn.BatchNorm2d):
    """A synchronised BatchNorm that waits for nobody, with the activation that timm's may hold."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, ...) -> the same, normalised over this process's images."""
        images = super().forward(images)
        for name in ("drop", "act"):
            images = getattr(self, name)(images) if hasattr(self, name) else images
        return images

    def _check_input_dim(self, images: Tensor) -> None:
        """The layer that it stands for takes any number of dimensions."""


def copy_for_one(model: Model) -> Model:
    """A copy of `model` that one process may train or re-estimate while the others do something else."""
    alone = copy.deepcopy(model)
    for module in alone.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = LocalNorm  # type: ignore[assignment]  # the same parameters, buffers and children; only its forward differs
    return alone

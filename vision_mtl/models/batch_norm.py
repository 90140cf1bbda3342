"""Synchronised BatchNorm for training with several processes, and its conversion back for a single process.

A process sees only some images of a step. On GPUs, synchronised BatchNorm computes statistics over all of them, so that
a step equals that of a single process. PyTorch has no such layer for the CPU, where each process uses its own images.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def synchronise(model: nn.Module) -> None:
    """Replace every BatchNorm below `model`, in place, by a synchronised one with the same parameters.

    `model` itself must not be a BatchNorm.
    """
    for name, child in list(model.named_children()):
        setattr(model, name, convert_sync_batchnorm(child))


def needs_two_images(model: nn.Module, frozen: Sequence[nn.Module] = ()) -> bool:
    """Return True if training `model` normalises over the images of a pass, except in `frozen` modules.

    BatchNorm does. The statistics of one image say nothing about others, and where a map has one position PyTorch
    raises an error. Synchronised BatchNorm uses the images of all processes, so it is no such module.
    """
    kept = set(frozen)
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        for module in model.modules()
        if module not in kept
    )


class LocalNorm(nn.BatchNorm2d):
    """BatchNorm over this process's images only; applies dropout and activation as timm's combined layers do."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, ...) -> the same, normalised over this process's images."""
        images = super().forward(images)
        for name in ("drop", "act"):
            images = getattr(self, name)(images) if hasattr(self, name) else images
        return images

    def _check_input_dim(self, images: Tensor) -> None:
        """Accept any number of dimensions, as `nn.SyncBatchNorm` does."""


def copy_for_one(model: Model) -> Model:
    """Return a copy of `model` that a single process can train or re-estimate on its own."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.SyncBatchNorm):
            # same parameters, buffers and children; only `forward` differs
            module.__class__ = LocalNorm  # type: ignore[assignment]
    return copied

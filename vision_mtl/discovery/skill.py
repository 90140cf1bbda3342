"""Predictions for damaged images, and errors of repairs.

Squared errors are over the scored pixels in [0, 1]; pretexts without a repair (rotation, contrast, distil, ...) have
their loss as the error. A skill is 1 - sum(error) / sum(error of a reference): 0 for the reference, 1 for a perfect
repair, negative for a worse one.
"""
# B images in a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part

SCORE_SEED = 20_240_117  # of the scored damage: the same in every run, different from the draws of training


def predict(
    model: SharedModel,
    mixture: Mixture,
    name: str,
    images: Tensor,
    keys: Keys,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Part, Tensor, Tensor]:
    """Damage images (B, C, H, W) by pretext `name`; return the part, the damaged images and the float32 prediction."""
    part, damaged = mixture.prepare_all(name, images, keys)
    return part, damaged, predict_part(model, part, damaged, autocast)


def predict_part(
    model: SharedModel,
    part: Part,
    damaged: Tensor,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """The first readout's prediction for a damaged part: (b, K, H, W) or (b, K), float32, without gradients."""
    with torch.no_grad(), autocast():
        return model(damaged, [part])[part.name][0].float()


def squared_error(repaired: Tensor, images: Tensor, scored: Tensor) -> Tensor:
    """(B,) mean squared error over the scored pixels (B, 1, H, W) and channels; 0 without a scored pixel."""
    squares = torch.where(scored, (repaired - images).square(), 0.0)
    return squares.sum((1, 2, 3)) / (scored.sum((1, 2, 3)) * images.shape[1]).clamp(min=1)

"""Errors of the model's repair, the untrained repair and the classic repair, instance by instance.

`skill = 1 - sum(error_model) / sum(error_reference)`, with squared errors over the scored pixels in [0, 1]. It is 0 for
the classic repair (OpenCV inpainting, the grey image, bicubic), 1 for a perfect repair, negative for a worse one.
Pretexts without a repair (rotation, neighbour, contrast) have the skill 1 - loss / chance loss.
"""
# n instances, B images in a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import inference_batch_size
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

SCORE_SEED = 20_240_117  # of the scored damage: the same in every run, different from the draws of training


@dataclass(frozen=True)
class Errors:
    """Three errors for each of n instances of one pretext, and the index of its image in the pool.

    An error is the mean squared error over the scored pixels, or a loss. `untrained` is the error of an all-zero
    prediction, which a network makes before its first step.
    """

    index: np.ndarray  # (n,) int64
    model: np.ndarray  # (n,) float64
    untrained: np.ndarray  # (n,) float64
    reference: np.ndarray  # (n,) float64

    @staticmethod
    def joined(parts: Sequence[Errors]) -> Errors:
        """Concatenate several measurements."""
        return Errors(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Errors)))

    def select(self, rows: np.ndarray) -> Errors:
        """Return the instances `rows`, which are numbers (m,) or (n,) bool."""
        return Errors(*(getattr(self, f.name)[rows] for f in fields(self)))


def measure_errors(
    model: SharedModel,
    pool: Pool,
    indices: Tensor,
    mixture: Mixture,
    name: str,
    *,
    num_draws: int = 1,
    batch_size: int | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Errors:
    """Return the errors of pretext `name` on `num_draws` damages of each usable image of the pool's `indices` (n,)."""
    device = next(model.parameters()).device
    found = []
    training = model.training
    model.eval()
    for draw in range(num_draws):
        for batch in indices.split(batch_size or inference_batch_size(device)):
            images = pool.gather(batch).to(device)
            keep = mixture.pretexts[name].usable(images)
            if not bool(keep.any()):
                continue
            images, batch = images[keep], batch[keep.cpu()]
            keys = Keys(SCORE_SEED, draw, batch.to(device))
            with torch.no_grad():
                part, damaged, prediction = predict(model, mixture, name, images, keys, autocast)
                errors = _errors(part, damaged, prediction)
            of = batch[part.source_rows.cpu()]  # an image may give several instances
            found.append(Errors(of.numpy(), *(e.double().cpu().numpy() for e in errors)))
    model.train(training)
    empty = np.zeros(0)
    return Errors.joined(found) if found else Errors(empty.astype(np.int64), empty, empty, empty)


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


def _errors(part: Part, damaged: Tensor, prediction: Tensor) -> Iterable[Tensor]:
    """The errors (B,) of the model, of the zero prediction and of the reference."""
    pretext, images, draw = part.pretext, part.images, part.draw
    zeros = zero_prediction(pretext, images)
    if not pretext.repairs:
        return (pretext.loss(p, images, draw) for p in (prediction, zeros, zeros))
    scored = pretext.scored(images, draw)
    repairs = (
        pretext.repair(prediction, damaged, draw),
        pretext.repair(zeros, damaged, draw),
        pretext.reference(images, draw),
    )
    return (squared_error(repaired, images, scored) for repaired in repairs)

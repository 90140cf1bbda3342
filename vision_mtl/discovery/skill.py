"""Errors of the model's repair, of the untrained one and of the classic one, instance by instance.

`skill = 1 - sum(error_model) / sum(error_reference)`, squared error on pixels in [0, 1] over the scored ones. 0 is the
classic repair (OpenCV inpainting, the grey image, bicubic), 1 a perfect one, below 0 worse than the classic. Questions
(rotation, neighbour, contrast) are scored by 1 - loss / chance loss in the same way.
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
from vision_mtl.evaluation.features import images_a_pass
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.training.repair import zero_prediction

SCORE_SEED = 20_240_117  # the damage that repairs are judged on: the same for every run, and none that training draws


@dataclass(frozen=True)
class Errors:
    """For n instances of one pretext: the image's index in the pool, and three errors.

    An error is the mean squared error over the scored pixels, or a loss. `untrained` is that of an all-zero prediction,
    which is what a network gives before its first step: what a pretext's formulation earns without learning.
    """

    index: np.ndarray  # (n,) int64
    model: np.ndarray  # (n,) float64
    untrained: np.ndarray  # (n,) float64
    reference: np.ndarray  # (n,) float64

    @staticmethod
    def joined(parts: Sequence[Errors]) -> Errors:
        """Several measurements as one."""
        return Errors(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Errors)))

    def select(self, rows: np.ndarray) -> Errors:
        """Some of the instances: `rows` are numbers (m,) or (n,) bool."""
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
    """Score pretext `name` on the pool's images `indices` (n,), `num_draws` damages each; unusable ones are left
    out."""
    device = next(model.parameters()).device
    found = []
    training = model.training
    model.eval()
    for draw in range(num_draws):
        for batch in indices.split(batch_size or images_a_pass(device)):
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
    """Damage images (B, C, H, W) by pretext `name` and predict: the part, the damaged images, the first readout
    (float32)."""
    part, damaged = mixture.prepare_all(name, images, keys)
    return part, damaged, predict_part(model, part, damaged, autocast)


def predict_part(
    model: SharedModel,
    part: Part,
    damaged: Tensor,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """What the first readout says of a damaged part: (b, K, H, W) or (b, K), float32, without a gradient."""
    with torch.no_grad(), autocast():
        return model(damaged, [part])[part.name][0].float()


def squared_error(repaired: Tensor, images: Tensor, scored: Tensor) -> Tensor:
    """(B,) mean squared error over scored pixels (B, 1, H, W) and channels; 0 where no pixel is scored."""
    squares = torch.where(scored, (repaired - images).square(), 0.0)
    return squares.sum((1, 2, 3)) / (scored.sum((1, 2, 3)) * images.shape[1]).clamp(min=1)


def _errors(part: Part, damaged: Tensor, prediction: Tensor) -> Iterable[Tensor]:
    """(model's, untrained, reference's) error of each image."""
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

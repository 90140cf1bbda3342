"""What a step of self-supervision minimises: each pretext's loss in units of its chance loss, averaged over images.

A pretext's loss is divided by the loss of its chance answer (an all-zero prediction), measured on training images
before the first step. Every pretext then starts at 1 and is worth the same, whatever its units; the raw values differ a
hundredfold between colours, pixels and questions, and the largest would drown the rest.
"""
# B images in the batch, b rows of one pretext

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vision_mtl.core.rng import Keys
from vision_mtl.models.shared import Answer, Request
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import MixedBatch, Mixture, Part

SMALLEST_CHANCE = 1e-4  # mean squared error of one grey level in a hundred: below it a pretext has nothing to learn


@dataclass(frozen=True)
class StepLoss:
    """The scalar to minimise, and each pretext's mean loss relative to chance (detached scalars) with its rows."""

    total: Tensor
    parts: dict[str, Tensor]
    rows: int


class PretextObjective:
    """Damages a batch and measures how well the model repairs it. `chance` maps a pretext to its chance loss."""

    def __init__(self, mixture: Mixture, chance: Mapping[str, float]) -> None:
        self.mixture, self.chance = mixture, dict(chance)

    def __call__(self, model: nn.Module, images: Tensor, keys: Keys, layout: torch.memory_format) -> StepLoss:
        """Images (B, C, H, W) in [0, 1] on the model's device; keys give the damage."""
        batch = self.mixture.prepare(images, keys)
        chance = spread(keys, batch)
        predictions = model(batch.damaged.to(memory_format=layout), requests(batch.parts), chance)
        total = images.new_zeros(())
        parts = {}
        for part in batch.parts:
            readouts = predictions[part.name]
            losses = [part.pretext.loss(p.float(), part.images, part.draw) for p in readouts]  # (b,) each
            relative = sum(losses) / len(losses) / self.chance[part.name]
            total = total + relative.sum()
            count = part.pretext.usable(part.images).sum().clamp(min=1)
            parts[part.name] = losses[0].detach().sum() / count / self.chance[part.name]
        return StepLoss(total / len(batch.damaged), parts, len(batch.damaged))


def requests(parts: list[Part]) -> list[Request]:
    """What the shared model needs to know of a mixed batch."""
    return [Request(part.name, part.rows, part.mask) for part in parts]


def spread(keys: Keys, batch: MixedBatch) -> Tensor:
    """(B',) in [0, 1): one number for each damaged row, for what a decoder leaves out; it follows the image."""
    uniform = keys.fold("decoder").uniform()
    return torch.cat([uniform[part.source_rows] for part in batch.parts])


def answers(pretexts: Mapping[str, Pretext], channels: int) -> dict[str, Answer]:
    """The head that each pretext needs."""
    return {
        name: Answer(p.output, p.num_outputs(channels), getattr(p, "learned_fill", False))
        for name, p in pretexts.items()
    }


def chance_losses(mixture: Mixture, images: Tensor, keys: Keys) -> dict[str, float]:
    """Each pretext's loss of an all-zero prediction, averaged over usable images; absent if none is usable."""
    found = {}
    for name, pretext in mixture.pretexts.items():
        usable = pretext.usable(images)
        if not bool(usable.any()):
            continue
        draw = pretext.sample(keys.fold(name), tuple(images.shape[1:]))
        loss = pretext.loss(zero_prediction(pretext, images), images, draw)[usable]
        found[name] = max(float(loss.mean()), SMALLEST_CHANCE)
    return found


def zero_prediction(pretext: Pretext, images: Tensor) -> Tensor:
    """The chance answer: zeros of the shape that the pretext's head gives."""
    size = images.shape[-2:] if pretext.output == "pixels" else ()
    return images.new_zeros(len(images), pretext.num_outputs(images.shape[1]), *size)

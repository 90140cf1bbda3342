"""The self-supervised objective: each pretext's loss in units of its chance loss, averaged over images.

A pretext's loss is divided by the loss of its chance answer (an all-zero prediction), measured on training images
before the first step. Every pretext then starts at 1 and is worth the same, whatever its units; the raw values differ a
hundredfold between colours, pixels and questions, and the largest would drown the rest.
"""
# B images in the batch, B' damaged instances, b rows of one pretext

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.device_transfer import DeviceTransfer, TransferStream
from vision_mtl.core.rng import Keys
from vision_mtl.data.ahead import Ahead, plan
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool, image_tensor
from vision_mtl.models.shared import HeadSpec
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.pretext.suitability import Suitability
from vision_mtl.training.objective import Predictions, Prepared, StepLoss

SMALLEST_CHANCE = 1e-4  # mean squared error of one grey level in a hundred: below it a pretext has nothing to learn
REPAIR = "repair"  # the objective's name, beside the tasks'
RepairBatch = tuple[Tensor, Keys]  # undamaged images (B, C, H, W) in [0, 1], and the keys of their damage, on the CPU


class PretextObjective:
    """Damages a batch and measures how well the model repairs it.

    `chance_losses` maps a pretext to its chance loss; `weight` gives the whole objective's weight at a share of
    training. All its batches must be of one pool: which pretexts suit an image is found once and remembered.
    """

    names: Sequence[str] = (REPAIR,)

    def __init__(
        self,
        mixture: Mixture,
        chance_losses: Mapping[str, float],
        weight: Callable[[float], float] = lambda progress: 1.0,
    ) -> None:
        self.mixture, self.chance_losses, self.weight = mixture, dict(chance_losses), weight
        self.suitability = Suitability()

    @property
    def shown(self) -> Sequence[str]:
        """The mixture's pretexts."""
        return list(self.mixture.pretexts)

    def prepare(self, batch: RepairBatch, share: float = 1.0) -> Prepared:
        """Damage every image by the pretext that its key draws; the rows are sorted by pretext."""
        images, keys = batch
        usable = self.suitability.of(self.mixture.pretexts, images, keys.index)
        damaged, parts = self.mixture.prepare(images, keys, usable)
        return Prepared(damaged, parts, draw_drops(keys.to(damaged.device), parts), share, data=parts)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float = 0.0) -> StepLoss:
        """Return the mean over images of the loss relative to chance; of several damaged instances an image has the
        mean.

        So an image counts once, whatever its pretext and whoever else is in its micro-batch.
        """
        parts: Sequence[Part] = prepared.data
        total, shown = prepared.images.new_zeros(()), {}
        for part in parts:
            readouts = predictions[part.name]
            losses = [part.pretext.loss(p.float(), part.images, part.draw) for p in readouts]  # (b,) each
            instances = len(part.images) / part.num_images
            total = total + sum(losses).sum() / len(losses) / self.chance_losses[part.name] / instances
            count = part.pretext.usable(part.images).sum()
            shown[part.name] = (losses[0].detach().sum() / self.chance_losses[part.name], count)
        count = sum(part.num_images for part in parts)
        return StepLoss({REPAIR: total * (self.weight(progress) * prepared.share / count)}, shown, len(prepared.images))


@dataclass(frozen=True)
class RepairFeed:
    """Batches of images to damage, on `device`, with draws of `seed`.

    Streamed images are decoded ahead by `num_workers` threads, 0: one a core. On a GPU the next step's images are
    gathered and sent while this one runs. Stored images on the CPU are gathered when they are asked for, which takes
    under a hundredth of a step.
    """

    pool: Pool
    batches: Batches
    seed: int
    device: torch.device
    num_workers: int = 0
    ahead: Ahead[Tensor] | None = field(init=False, default=None, repr=False)
    _stream: TransferStream | None = field(init=False, default=None, repr=False)
    _begun: dict[int, DeviceTransfer] = field(init=False, default_factory=dict, repr=False)  # by step, the next at most

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            object.__setattr__(self, "_stream", TransferStream(self.device))
        if self._stream is not None or self.pool.is_streamed:
            step_bytes = self.batches.batch_size * int(np.prod(self.pool.shape))
            depth, workers = plan(step_bytes, self.num_workers if self.pool.is_streamed else 1)
            object.__setattr__(self, "ahead", Ahead(self._read, depth, workers, "images"))

    def at(self, step: int, num_micro_batches: int) -> list[tuple[RepairBatch, float]]:
        """Return the step's images in micro-batches, with their shares."""
        indices, epochs = self.batches.at(step)
        found = []
        count = min(num_micro_batches, len(indices))
        stored = None if self.ahead is None else iter(self._stored(step).tensor_split(count))
        for chunk, epoch in zip(indices.tensor_split(count), epochs.tensor_split(count), strict=True):
            images = self.pool.gather(chunk, self.device) if stored is None else image_tensor(next(stored), self.device)
            keys = Keys(self.seed, epoch, chunk)  # on the CPU, where who gets which damage is settled without a wait
            found.append(((images, keys), len(chunk) / len(indices)))
        return found

    def _read(self, step: int) -> Tensor:
        """(B, H, W, C) uint8 of a step, by a thread of its own; pinned where it is to be sent."""
        pixels = torch.from_numpy(self.pool.pixels(self.batches.at(step)[0], num_workers=1))
        return pixels if self._stream is None else pixels.pin_memory()

    def _stored(self, step: int) -> Tensor:
        """The same on the device; the next step's are sent as well, if they are there."""
        pixels = self.ahead.at(step)
        if self._stream is None:
            return pixels
        transfer = self._begun.pop(step, None) or self._stream.begin(pixels)
        self._begun.clear()
        following = self.ahead.ready(step + 1)
        if following is not None:
            self._begun[step + 1] = self._stream.begin(following)
        return transfer.finish()

    @property
    def images_per_step(self) -> int:
        """Images of a step, over all processes."""
        return self.batches.batch_size * self.batches.world_size

    def evidence(self, step: int) -> dict[str, Tensor]:
        """What the step looked at."""
        indices = self.batches.at(step)[0]
        return {"indices": indices, "images": self.pool.gather(indices)}

    def close(self) -> None:
        """End the threads."""
        self._begun.clear()
        if self.ahead is not None:
            self.ahead.close()


def draw_drops(keys: Keys, parts: Sequence[Part]) -> Tensor:
    """Return (B',) in [0, 1): one number for each damaged row, for what a decoder drops; it follows the image."""
    uniform = keys.fold("decoder").uniform()
    return torch.cat([uniform[part.source_rows] for part in parts])


def head_specs(pretexts: Mapping[str, Pretext], channels: int) -> dict[str, HeadSpec]:
    """The head that each pretext needs."""
    return {
        name: HeadSpec(p.output, p.num_outputs(channels), getattr(p, "learned_fill", False))
        for name, p in pretexts.items()
    }


def measure_chance_losses(mixture: Mixture, images: Tensor, keys: Keys) -> dict[str, float]:
    """Return each pretext's loss of an all-zero prediction for images (n, C, H, W), averaged over usable images.

    A pretext that can use none of them is absent.
    """
    found = {}
    for name, pretext in mixture.pretexts.items():
        usable = pretext.usable(images)
        if not bool(usable.any()):
            continue
        if pretext.output == "embedding":
            found[name] = 1.0  # its loss has this unit already
            continue
        draw = pretext.sample(keys.fold(name), tuple(images.shape[1:]))
        loss = pretext.loss(zero_prediction(pretext, images), images, draw)[usable]
        found[name] = max(float(loss.mean()), SMALLEST_CHANCE)
    return found


def zero_prediction(pretext: Pretext, images: Tensor) -> Tensor:
    """The chance answer to images (B, C, H, W): zeros (B, K, H, W) or (B, K), as the pretext's head gives."""
    size = images.shape[-2:] if pretext.repairs else ()
    return images.new_zeros(len(images), pretext.num_outputs(images.shape[1]), *size)

"""The self-supervised objective: each pretext's loss relative to its chance loss, averaged over images.

A pretext's chance loss is the loss of an all-zero prediction, measured on training images before the first step.
Divided by it, every pretext's loss starts at 1. The raw losses differ a hundredfold between colours, pixels and
classification pretexts, and the largest would dominate the sum.
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
from vision_mtl.core.shapes import image_shape
from vision_mtl.data.ahead import Ahead, plan
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool, image_tensor
from vision_mtl.models.passes import Shown
from vision_mtl.models.shared import HeadSpec
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.mixture import Mixture, Part
from vision_mtl.pretext.suitability import Suitability
from vision_mtl.training.objective import Predictions, Prepared, StepLoss, add_up

SMALLEST_CHANCE = 1e-4  # the square of 1 % of the pixel range: below it a pretext has nothing to learn
REPAIR = "repair"  # the name of this objective's loss
RepairBatch = tuple[Tensor, Keys]  # undamaged images (B, C, H, W) in [0, 1], and the keys of their damage, on the CPU


class PretextObjective:
    """Damages a batch and measures how well the model repairs it.

    `chance_losses` maps each pretext to its chance loss; `weight` maps the share of training done to the objective's
    weight. All batches must come from one pool, because the pretexts that suit an image are cached by its index.
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
        """Damage every image by the pretext that its key draws, and sort the rows by pretext."""
        images, keys = batch
        usable = self.suitability.of(self.mixture.pretexts, images, keys.index)
        damaged, parts = self.mixture.prepare(images, keys, usable)
        # views of an embedding hide nothing from each other: they stay in one pass
        shown = Shown.join(Shown.of(part.index, part.pretext.output != "embedding") for part in parts)
        drops = draw_drops(keys.to(damaged.device), parts)
        return Prepared(damaged, parts, drops, share, parts, shown)

    def measure(self, predictions: Predictions, prepared: Prepared, progress: float = 0.0) -> StepLoss:
        """Return the mean over images of the loss relative to the chance loss.

        An image's loss is the mean over its damaged instances. So every image has the same weight, independent of its
        pretext and of the other images in its micro-batch.
        """
        parts: Sequence[Part] = prepared.data
        total, shown = prepared.images.new_zeros(()), {}
        for part in parts:
            readouts = predictions[part.name]
            losses = [part.pretext.loss(p.float(), part.images, part.draw) for p in readouts]  # (b,) each
            instances = len(part.images) / part.num_images
            total = total + add_up(losses).sum() / len(losses) / self.chance_losses[part.name] / instances
            num_usable = part.pretext.usable(part.images).sum()
            shown[part.name] = (losses[0].detach().sum() / self.chance_losses[part.name], num_usable)
        num_images = sum(part.num_images for part in parts)
        scale = self.weight(progress) * prepared.share / num_images
        return StepLoss({REPAIR: total * scale}, shown, len(prepared.images))


@dataclass(frozen=True)
class RepairFeed:
    """Batches of images to damage, on `device`, with random keys from `seed`.

    Streamed images are decoded ahead by `num_workers` threads (0: one for each core). For a GPU the next step's images
    are gathered and transferred during this step. For the CPU stored images are gathered when they are needed, which
    takes less than 1 % of a step.
    """

    pool: Pool
    batches: Batches
    seed: int
    device: torch.device
    num_workers: int = 0
    ahead: Ahead[Tensor] | None = field(init=False, default=None, repr=False)
    _stream: TransferStream | None = field(init=False, default=None, repr=False)
    _begun: dict[int, DeviceTransfer] = field(init=False, default_factory=dict, repr=False)  # by step: at most the next

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            object.__setattr__(self, "_stream", TransferStream(self.device))
        if self._stream is not None or self.pool.is_streamed:
            step_bytes = self.batches.batch_size * int(np.prod(self.pool.shape)) * self.pool.dtype.itemsize
            depth, workers = plan(step_bytes, self.num_workers if self.pool.is_streamed else 1)
            object.__setattr__(self, "ahead", Ahead(self._read, depth, workers, "images"))

    def at(self, step: int, num_micro_batches: int) -> list[tuple[RepairBatch, float]]:
        """Return the step's images in micro-batches, with their shares."""
        indices, epochs = self.batches.at(step)
        found = []
        count = min(num_micro_batches, len(indices))
        read = None if self.ahead is None else iter(self._take(self.ahead, step).tensor_split(count))
        for chunk, epoch in zip(indices.tensor_split(count), epochs.tensor_split(count), strict=True):
            images = self.pool.gather(chunk, self.device) if read is None else image_tensor(next(read), self.device)
            keys = Keys(self.seed, epoch, chunk)  # on the CPU, where pretexts are assigned without a GPU sync
            found.append(((images, keys), len(chunk) / len(indices)))
        return found

    def smallest_part(self, num_micro_batches: int) -> int:
        """Return the number of images in the smallest micro-batch of this process; 0: there are fewer than parts."""
        return self.batches.batch_size // num_micro_batches

    def _read(self, step: int) -> Tensor:
        """Return the pixels (B, H, W, C) of a step, pinned if they go to a GPU; a reading thread calls this."""
        pixels = torch.from_numpy(self.pool.pixels(self.batches.at(step)[0], num_workers=1))
        return pixels if self._stream is None else pixels.pin_memory()

    def _take(self, ahead: Ahead[Tensor], step: int) -> Tensor:
        """Return the pixels of a step on the device; begin to transfer the next step's if they are ready."""
        pixels = ahead.at(step)
        if self._stream is None:
            return pixels
        transfer = self._begun.pop(step, None) or self._stream.begin(pixels)
        self._begun.clear()
        following = ahead.ready(step + 1)
        if following is not None:
            self._begun[step + 1] = self._stream.begin(following)
        return transfer.finish()

    @property
    def images_per_step(self) -> int:
        """The number of images of a step, over all processes."""
        return self.batches.batch_size * self.batches.world_size

    def evidence(self, step: int) -> dict[str, Tensor]:
        """Return the step's `indices` (B,) in the pool and its undamaged `images` (B, C, H, W)."""
        indices = self.batches.at(step)[0]
        return {"indices": indices, "images": self.pool.gather(indices)}

    def close(self) -> None:
        """Stop the reading threads."""
        self._begun.clear()
        if self.ahead is not None:
            self.ahead.close()


def draw_drops(keys: Keys, parts: Sequence[Part]) -> Tensor:
    """Return (B',) in [0, 1): a number for each damaged row, for the decoder's dropping; it depends on the image."""
    uniform = keys.fold("decoder").uniform()
    return torch.cat([uniform[part.source_rows] for part in parts])


def head_specs(pretexts: Mapping[str, Pretext], channels: int) -> dict[str, HeadSpec]:
    """Return the spec of each pretext's head for images of `channels` channels."""
    return {
        name: HeadSpec(p.head_kind, p.num_outputs(channels), getattr(p, "learned_fill", False))
        for name, p in pretexts.items()
    }


def measure_chance_losses(mixture: Mixture, images: Tensor, keys: Keys) -> dict[str, float]:
    """Return each pretext's loss of an all-zero prediction for images (n, C, H, W), averaged over usable images.

    A pretext that can use none of the images is absent.
    """
    found: dict[str, float] = {}
    for name, pretext in mixture.pretexts.items():
        usable = pretext.usable(images)
        if not bool(usable.any()):
            continue
        if pretext.output == "embedding":
            found[name] = 1.0  # its loss is relative to the chance loss already
            continue
        draw = pretext.sample(keys.fold(name), image_shape(images))
        loss = pretext.loss(zero_prediction(pretext, images), images, draw)[usable]
        found[name] = max(float(loss.mean()), SMALLEST_CHANCE)
    return found


def zero_prediction(pretext: Pretext, images: Tensor) -> Tensor:
    """Return the all-zero prediction for images (B, C, H, W): (B, K, H, W) for a pretext that repairs, else (B, K)."""
    size = images.shape[-2:] if pretext.repairs else ()
    return images.new_zeros(len(images), pretext.num_outputs(images.shape[1]), *size)

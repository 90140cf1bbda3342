"""Mixup and CutMix within a batch of several tasks; partners are images drawn for the same task.

Zhang et al., "mixup", 2018, https://arxiv.org/abs/1710.09412, sec. 2; Yun et al., "CutMix", 2019,
https://arxiv.org/abs/1905.04899, sec. 3.1. Differs from the papers: a mixed image has a task's label only if both
partners have one. Off by default: on small labelled sets both usually cost accuracy.
"""
# B images, b rows labelled for one task, H W pixels

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.special import betaincinv
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.data.loader import LabelledBatch


@dataclass(frozen=True)
class Labels:
    """One task's labels in a batch: the rows (b,) that have one, and their `values` as `Target.gather` returns them.

    In a mixed batch `others` are the partners' values and `share` (b,) in [0, 1] is the image's own share; else both
    are None.
    """

    rows: Tensor
    values: Tensor
    others: Tensor | None = None
    share: Tensor | None = None

    def to(self, device: torch.device) -> Labels:
        """Return the labels on `device`."""
        return self._apply(lambda tensor: tensor.to(device, non_blocking=True))

    def select(self, which: Tensor) -> Labels:
        """Return the labels `which` (b,) bool, or (n,) int64."""
        return self._apply(lambda tensor: tensor[which])

    def between(self, start: int, stop: int) -> Labels:
        """Return the labels of rows `start` to `stop`, with rows counted from `start`."""
        own = self.select((self.rows >= start) & (self.rows < stop))
        return replace(own, rows=own.rows - start)

    def _apply(self, change: Callable[[Tensor], Tensor]) -> Labels:
        others = None if self.others is None else change(self.others)
        share = None if self.share is None else change(self.share)
        return Labels(change(self.rows), change(self.values), others, share)


@dataclass(frozen=True)
class Mixing:
    """The strengths of mixup and CutMix (0: off); with both on, each image is mixed by one of them at random.

    Raises `UserError` for a strength that is negative or not finite.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name.removesuffix('_alpha')} must be 0 or more; found {value}.")

    def __call__(
        self, images: Tensor, labels: dict[str, Labels], batch: LabelledBatch, seed: int
    ) -> tuple[Tensor, dict[str, Labels]]:
        """Return the images (B, C, H, W), each mixed with a partner, and their labels.

        Masks are cut like their images, but never blended.
        """
        keys = _keys(batch, seed).to(images.device)
        partner = partners(batch.drawn_for.to(images.device), keys)
        cut = self._cuts(keys)
        alpha = torch.where(cut, self.cutmix_alpha, self.mixup_alpha)
        share = symmetric_beta(keys, alpha)
        box = boxes(keys, share, images.shape[-2:])  # (B, 1, H, W)
        share = torch.where(cut, 1 - box.float().mean((1, 2, 3)), share)
        blend = share[:, None, None, None]
        mixed = torch.where(
            cut[:, None, None, None],
            torch.where(box, images[partner], images),
            blend * images + (1 - blend) * images[partner],
        )
        paired = {name: _paired(own, partner, share, len(images)) for name, own in labels.items()}
        return mixed, {name: _cut_masks(own, box, cut) for name, own in paired.items()}

    def mixed(self, batch: LabelledBatch, seed: int) -> Tensor:
        """Return (B, 2) int64: the pool's number of each row's image and of its partner, on the CPU."""
        partner = partners(batch.drawn_for, _keys(batch, seed))
        return torch.stack((batch.indices, batch.indices[partner]), dim=1)

    def _cuts(self, keys: Keys) -> Tensor:
        """Return (B,) bool: True where CutMix is used, False where mixup is."""
        if not self.mixup_alpha or not self.cutmix_alpha:
            return torch.full((len(keys),), bool(self.cutmix_alpha), device=keys.device)
        return keys.integers(2).bool()


def _keys(batch: LabelledBatch, seed: int) -> Keys:
    return Keys(seed, batch.epochs, batch.indices, name="mixing")


def partners(task: Tensor, keys: Keys) -> Tensor:
    """Return (B,) int64: each row's partner, a random row drawn for the same task (perhaps itself)."""
    order = torch.argsort(keys.bits(1)[:, 0], stable=True)
    shuffled = order[torch.argsort(task[order], stable=True)]  # by task, in random order within
    sorted_rows = torch.argsort(task, stable=True)
    found = torch.empty_like(task)
    found[sorted_rows] = shuffled
    return found


def symmetric_beta(keys: Keys, alpha: Tensor) -> Tensor:
    """Return (B,) draws from Beta(alpha, alpha), by its inverse distribution function; 1 where alpha is 0."""
    uniform, strength = (values.double().cpu() for values in (keys.uniform(), alpha))
    # 1e-3: the smallest value for which the inverse is exact; practically all draws are 0 or 1 there
    shape = strength.clamp(min=1e-3).numpy()
    drawn = torch.from_numpy(betaincinv(shape, shape, uniform.numpy()))
    return torch.where(strength > 0, drawn, 1.0).float().to(keys.device)


def boxes(keys: Keys, share: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Return (B, 1, H, W) bool: a random rectangle with the image's aspect ratio and about 1 - share of its area."""
    side = (1 - share).sqrt()
    inside = []
    for length in size:
        centre = keys.uniform() * length
        half = side * length / 2
        place = torch.arange(length, device=share.device)[None] + 0.5
        inside.append((place >= (centre - half)[:, None]) & (place < (centre + half)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _paired(own: Labels, partner: Tensor, share: Tensor, count: int) -> Labels:
    """Return the labels of the rows whose partner has a label as well, with the partner's value."""
    place = torch.full((count,), -1, device=partner.device)
    place[own.rows] = torch.arange(len(own.rows), device=partner.device)
    other = place[partner[own.rows]]  # the partner's index among the labelled rows; -1: no label
    both = other >= 0
    return Labels(own.rows[both], own.values[both], own.values[other[both]], share[own.rows[both]])


def _cut_masks(own: Labels, box: Tensor, cut: Tensor) -> Labels:
    """Return masks (b, H, W) cut like their images (B, 1, H, W): every pixel has the class that the image shows there.

    Other labels are returned as they are.
    """
    if own.values.ndim != 3 or own.others is None or own.share is None:
        return own
    chosen = cut[own.rows]
    values = torch.where(chosen[:, None, None] & box[own.rows, 0], own.others, own.values)
    return replace(own, values=values, share=torch.where(chosen, 1.0, own.share))

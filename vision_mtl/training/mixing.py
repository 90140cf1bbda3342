"""Mixup and CutMix within a batch of several tasks: partners were drawn for the same task.

Zhang et al., "mixup", 2018, https://arxiv.org/abs/1710.09412, sec. 2; Yun et al., "CutMix", 2019,
https://arxiv.org/abs/1905.04899, sec. 3.1. Differs from the papers: a label of any task counts for a mixed image only
if both partners carry one. Off by default: on small labelled sets both usually cost accuracy.
"""
# B images, b rows labelled for one task, H W pixels

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.special import betaincinv
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.data.loader import LabelledBatch


@dataclass(frozen=True)
class Labels:
    """One task's labels in a batch: of rows `rows` (b,), `values` as `Target.gather` gives them.

    In a mixed batch `others` are the partners' values and `share` (b,) in [0, 1] what is left of the image itself.
    """

    rows: Tensor
    values: Tensor
    others: Tensor | None = None
    share: Tensor | None = None

    def to(self, device: torch.device) -> Labels:
        """The same on `device`."""
        moved = (None if v is None else v.to(device, non_blocking=True) for v in vars(self).values())
        return Labels(*moved)

    def select(self, which: Tensor) -> Labels:
        """Some of the rows."""
        return Labels(*(None if v is None else v[which] for v in vars(self).values()))

    def between(self, start: int, stop: int) -> Labels:
        """Those of rows `start` to `stop`, numbered from `start`."""
        own = self.select((self.rows >= start) & (self.rows < stop))
        return replace(own, rows=own.rows - start)


@dataclass(frozen=True)
class Mixing:
    """Strengths of mixup and CutMix (0: off); with both on, each image is mixed by one of them at random."""

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name.removesuffix('_alpha')} must be 0 or more; found {value}.")

    def __call__(
        self, images: Tensor, labels: dict[str, Labels], batch: LabelledBatch, seed: int
    ) -> tuple[Tensor, dict[str, Labels]]:
        """The batch (B, C, H, W) with every image mixed with a partner; masks are cut as the images are, and never
        blended."""
        keys = Keys(seed, batch.epochs.to(images.device), batch.indices.to(images.device), name="mixing")
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
        return mixed, {n: _cut_masks(own, box, cut) if own.values.ndim == 3 else own for n, own in paired.items()}

    def _cuts(self, keys: Keys) -> Tensor:
        """(B,) bool: which images are cut, the others are blended."""
        if not self.mixup_alpha or not self.cutmix_alpha:
            return torch.full((len(keys),), bool(self.cutmix_alpha), device=keys.device)
        return keys.integers(2).bool()


def partners(task: Tensor, keys: Keys) -> Tensor:
    """(B,) int64: each row's partner, a random one of those drawn for the same task (perhaps itself)."""
    order = torch.argsort(keys.bits(1)[:, 0], stable=True)
    shuffled = order[torch.argsort(task[order], stable=True)]  # by task, in random order within
    sorted_rows = torch.argsort(task, stable=True)
    found = torch.empty_like(task)
    found[sorted_rows] = shuffled
    return found


def symmetric_beta(keys: Keys, alpha: Tensor) -> Tensor:
    """(B,) draws of Beta(alpha, alpha), by the inverse of its distribution; 1 where alpha is 0."""
    uniform, strength = (values.double().cpu() for values in (keys.uniform(), alpha))
    shape = strength.clamp(min=1e-3).numpy()  # 1e-3: the smallest that the inverse is exact for; all ends already
    drawn = torch.from_numpy(betaincinv(shape, shape, uniform.numpy()))
    return torch.where(strength > 0, drawn, 1.0).float().to(keys.device)


def boxes(keys: Keys, share: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, 1, H, W) bool: a rectangle of the image's shape, of about 1 - share of its area, at a random place."""
    side = (1 - share).sqrt()
    inside = []
    for length in size:
        centre = keys.uniform() * length
        half = side * length / 2
        place = torch.arange(length, device=share.device)[None] + 0.5
        inside.append((place >= (centre - half)[:, None]) & (place < (centre + half)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _paired(own: Labels, partner: Tensor, share: Tensor, count: int) -> Labels:
    """The rows whose partner carries a label of the task too, with the partner's value."""
    place = torch.full((count,), -1, device=partner.device)
    place[own.rows] = torch.arange(len(own.rows), device=partner.device)
    other = place[partner[own.rows]]  # the partner's place among the labelled rows, -1: it has no label
    both = other >= 0
    return Labels(own.rows[both], own.values[both], own.values[other[both]], share[own.rows[both]])


def _cut_masks(own: Labels, box: Tensor, cut: Tensor) -> Labels:
    """Classes a pixel (b, H, W): where the image was cut, each pixel has the class of what is seen there."""
    chosen = cut[own.rows]
    values = torch.where(chosen[:, None, None] & box[own.rows, 0], own.others, own.values)
    return replace(own, values=values, share=torch.where(chosen, 1.0, own.share))

"""Which damages of which images count more than others: what a selection says, in the form a mixture draws by."""
# N images of the pool, R rows that differ, B images of a batch, D damages of all pretexts, one pretext after the other

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import Pretext, Shape


@dataclass(frozen=True)
class Preference:
    """Damage d of image i is drawn `table[row[i], d]` times as often as without a preference, relative to the others.

    `table` is (R, D) float32, 0 or more; `row` (N,) int64. Damages stand in the order of `Pretext.damages`, pretexts in
    the mixture's.
    """

    table: Tensor
    row: Tensor

    def image_weights(self, shares: Tensor) -> Tensor:
        """(N,) float64: how often each image is drawn, if `shares` (D,) is how often each damage was."""
        return (self.table.double() @ shares.double())[self.row]

    def draw(self, keys: Keys, shares: Tensor, usable: Tensor) -> Tensor:
        """(B,) int64: a damage for each image, by number; `usable` (B, D) bool says which suit it.

        An image that none of its preferred damages suits gets one of them nevertheless: it then carries no loss.
        """
        table, row = (part.to(keys.device) for part in (self.table, self.row))
        weights = table[row[keys.index]].double() * shares.to(keys.device, torch.float64)  # (B, D)
        suited = weights * usable
        weights = torch.where((suited > 0).any(1, keepdim=True), suited, weights)
        edges = weights.cumsum(1)
        point = keys.fold("preference").uniform().double()[:, None] * edges[:, -1:]
        return (point >= edges).sum(1).clamp(max=weights.shape[1] - 1)


def count_damages(pretexts: Mapping[str, Pretext], shape: Shape) -> list[int]:
    """How many damages each pretext has, in order."""
    return [len(pretext.damages(shape)) for pretext in pretexts.values()]


def mixture_shares(pretexts: Mapping[str, Pretext], shape: Shape) -> Tensor:
    """(D,) of sum 1: how often a mixture without a preference draws each damage."""
    weights = torch.tensor([pretext.weight for pretext in pretexts.values()])
    parts = [w * p.damage_shares(shape) for w, p in zip(weights / weights.sum(), pretexts.values(), strict=True)]
    return torch.cat(parts)

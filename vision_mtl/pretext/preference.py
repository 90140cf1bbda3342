"""Sampling weights of damages and images: a selection in the form that a mixture draws from."""
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
    """Weight `table[row[i], d]` of damage d on image i, relative to how often a mixture without a preference draws it.

    `table` is (R, D) float32, 0 or more; `row` is (N,) int64. Damages are in the order of `Pretext.damages`, pretexts
    in the order of the mixture.
    """

    table: Tensor
    row: Tensor

    def image_weights(self, shares: Tensor) -> Tensor:
        """(N,) float64: each image's relative frequency; `shares` (D,) are the damages' without the preference."""
        return (self.table.double() @ shares.double())[self.row]

    def draw(self, keys: Keys, shares: Tensor, usable: Tensor) -> Tensor:
        """(B,) int64: the drawn damage of each image, by number; `usable` (B, D) bool is True where a damage suits it.

        An image that suits none of its preferred damages still gets one of them; its loss is then 0.
        """
        table, row = (part.to(keys.device) for part in (self.table, self.row))
        weights = table[row[keys.index]].double() * shares.to(keys.device, torch.float64)  # (B, D)
        suited = weights * usable
        weights = torch.where((suited > 0).any(1, keepdim=True), suited, weights)
        edges = weights.cumsum(1)
        point = keys.fold("preference").uniform().double()[:, None] * edges[:, -1:]
        return (point >= edges).sum(1).clamp(max=weights.shape[1] - 1)


def count_damages(pretexts: Mapping[str, Pretext], shape: Shape) -> list[int]:
    """Number of damages of each pretext, in order."""
    return [len(pretext.damages(shape)) for pretext in pretexts.values()]


def mixture_shares(pretexts: Mapping[str, Pretext], shape: Shape) -> Tensor:
    """(D,) of sum 1: the probability of each damage in a mixture without a preference."""
    weights = torch.tensor([pretext.weight for pretext in pretexts.values()])
    parts = [w * p.damage_shares(shape) for w, p in zip(weights / weights.sum(), pretexts.values(), strict=True)]
    return torch.cat(parts)

"""A cache of `Pretext.usable`: computed once for each image, because reading it from a GPU synchronises."""
# B images, K pretexts

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vision_mtl.pretext.contract import Pretext

UNKNOWN = -1


class Suitability:
    """Caches `Pretext.usable` of one pool's images by their index; pretexts that do not override it suit all images."""

    def __init__(self) -> None:
        self._cache: dict[str, Tensor] = {}  # (n,) int8 for the first n images: 1, 0 or UNKNOWN

    def of(self, pretexts: Mapping[str, Pretext], images: Tensor, index: Tensor) -> Tensor:
        """Images (B, C, H, W) and their index (B,) on the CPU -> (B, K) bool on the CPU."""
        found = torch.ones(len(index), len(pretexts), dtype=torch.bool)
        for number, (name, pretext) in enumerate(pretexts.items()):
            if type(pretext).usable is not Pretext.usable:
                found[:, number] = self._look_up(name, pretext, images, index)
        return found

    def _look_up(self, name: str, pretext: Pretext, images: Tensor, index: Tensor) -> Tensor:
        known = self._cache.get(name, torch.empty(0, dtype=torch.int8))
        missing = int(index.max()) + 1 - len(known)
        if missing > 0:  # at least double the length, so that growing stays rare
            known = torch.cat((known, known.new_full((max(missing, len(known)),), UNKNOWN)))
            self._cache[name] = known
        if bool((known[index] == UNKNOWN).any()):
            known[index] = pretext.usable(images).cpu().to(torch.int8)
        return known[index] == 1

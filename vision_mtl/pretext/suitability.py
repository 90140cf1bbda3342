"""Which images suit which pretexts, asked once of each image: the answer of a GPU has to be waited for."""
# B images, K pretexts

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vision_mtl.pretext.contract import Pretext

UNKNOWN = -1


class Suitability:
    """Remembers `Pretext.usable` of one pool's images, by their index. Pretexts that any image suits are not asked."""

    def __init__(self) -> None:
        self._known: dict[str, Tensor] = {}  # (n,) int8 for the first n images: 1, 0 or UNKNOWN

    def of(self, pretexts: Mapping[str, Pretext], images: Tensor, index: Tensor) -> Tensor:
        """Images (B, C, H, W) and their index (B,) on the CPU -> (B, K) bool on the CPU."""
        found = torch.ones(len(index), len(pretexts), dtype=torch.bool)
        for number, (name, pretext) in enumerate(pretexts.items()):
            if type(pretext).usable is not Pretext.usable:
                found[:, number] = self._ask(name, pretext, images, index)
        return found

    def _ask(self, name: str, pretext: Pretext, images: Tensor, index: Tensor) -> Tensor:
        known = self._known.get(name, torch.empty(0, dtype=torch.int8))
        beyond = int(index.max()) + 1 - len(known)
        if beyond > 0:
            known = torch.cat((known, known.new_full((max(beyond, len(known)),), UNKNOWN)))  # doubled: seldom done
            self._known[name] = known
        if bool((known[index] == UNKNOWN).any()):
            known[index] = pretext.usable(images).cpu().to(torch.int8)
        return known[index] == 1

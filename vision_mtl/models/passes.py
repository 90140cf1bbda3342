"""Separate passes of the backbone for rows that show one image, where BatchNorm normalises over the rows of a pass.

In training BatchNorm's statistics depend on every row of the pass. If another row shows what a row hides, the answer
reaches the row's prediction through the statistics. So a row that must predict what it hides never shares a pass with
another row of its image. Such rows are the damaged instances of one image, an image that a step holds twice, and in
`joint` the undamaged copy of a labelled image.
"""
# B rows, P passes

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vision_mtl.core.device_transfer import send

FEWEST_ROWS = 2  # of a pass: BatchNorm cannot normalise one row whose map has one position


@dataclass(frozen=True)
class Shown:
    """What the B rows of a batch show.

    `images` are the numbers of each row's images: one, or two in a mixed image. `guarded` is True for a row that
    predicts something of its image that the row does not show.
    """

    images: Sequence[tuple[int, ...]]
    guarded: Sequence[bool]

    @classmethod
    def of(cls, images: Tensor, guarded: bool) -> Shown:
        """Return the rows of images (B,) or (B, 2), all guarded or none."""
        rows = images.view(len(images), -1).tolist()
        return cls([tuple(row) for row in rows], [guarded] * len(rows))

    @classmethod
    def join(cls, parts: Iterable[Shown]) -> Shown:
        """Return the rows of all parts, one after another."""
        parts = list(parts)
        return cls([row for p in parts for row in p.images], [own for p in parts for own in p.guarded])

    @property
    def num_passes(self) -> int:
        """The least number of passes: each guarded row of an image needs its own, all other rows of it share one."""
        if not any(self.guarded):
            return 1
        guarded, plain = (
            Counter(n for row, own in zip(self.images, self.guarded, strict=True) if own is which for n in row)
            for which in (True, False)
        )
        return max((count + (image in plain) for image, count in guarded.items()), default=1)


def split_rows(shown: Shown, num_passes: int) -> list[list[int]]:
    """Return the rows of each pass, about equally many; more passes than `num_passes` where mixed images need them."""
    rows: list[list[int]] = [[] for _ in range(num_passes)]
    present: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in rows]  # images of all rows, of guarded ones
    order = sorted(range(len(shown.images)), key=lambda row: not shown.guarded[row])  # guarded rows first
    for row in order:
        images, guarded = shown.images[row], shown.guarded[row]
        free = [p for p, (all_, own) in enumerate(present) if not (all_ if guarded else own).intersection(images)]
        if not free:
            free = [len(rows)]
            rows.append([])
            present.append((set(), set()))
        chosen = min(free, key=lambda p: len(rows[p]))
        rows[chosen].append(row)
        present[chosen][0].update(images)
        if guarded:
            present[chosen][1].update(images)
    return rows


def fill_rows(rows: Sequence[int], shown: Shown) -> list[int]:
    """Return the rows of a pass with repeated ones at the end, up to two: rows of other images if there are any."""
    filled = list(rows)
    while len(filled) < FEWEST_ROWS:
        own = {image for row in filled for image in shown.images[row]}
        others = (row for row, images in enumerate(shown.images) if own.isdisjoint(images))
        filled.append(next(others, filled[0] if filled else 0))
    return filled


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers in training mode that normalise over the rows of a pass."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]


@contextmanager
def shared_momentum(norms: Sequence[nn.modules.batchnorm._BatchNorm], num_passes: int) -> Iterator[None]:
    """Let `num_passes` passes change the running statistics as much as one pass does."""
    before = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = None if momentum is None else 1 - (1 - momentum) ** (1 / num_passes)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def merge(maps: Sequence[Sequence[Tensor]], passes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return each map (B, ...) in the order of the batch from the maps of the passes, without the rows that fill."""
    kept = [m.narrow(0, 0, len(rows)) for own, rows in zip(maps, passes, strict=True) for m in own]
    order = torch.tensor([row for rows in passes for row in rows]).argsort()
    index, count = send(order, kept[0].device), len(maps[0])
    return [torch.cat(kept[number::count]).index_select(0, index) for number in range(count)]

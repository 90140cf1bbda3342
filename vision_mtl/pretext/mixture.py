"""Several pretexts in one batch, one for each image, with a single pass through the encoder."""
# B input images, B' damaged instances, b rows of one pretext

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vision_mtl.core.device_transfer import send
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.models.request import Request
from vision_mtl.pretext.contract import Draw, Pretext
from vision_mtl.pretext.preference import Preference, count_damages, mixture_shares


@dataclass(frozen=True, kw_only=True)
class Part(Request):
    """The contiguous slice of a mixed batch that one pretext damaged; also the request to its head."""

    rows: slice  # in the mixed batch
    pretext: Pretext
    source_rows: Tensor  # (b,) int64: the input image of each instance
    images: Tensor  # (b, C, H, W), undamaged
    draw: Draw
    num_images: int  # distinct input images; each has the same number of instances
    index: Tensor  # (b,) int64, the number of each instance's image in the pool; on the CPU if the keys were

    def select(self, which: slice | Tensor) -> Part:
        """Return the instances `which` (n,) as a part of their own: rows count from 0, each instance is one image."""
        images = self.images[which]
        return replace(
            self,
            rows=slice(0, len(images)),
            mask=None if self.mask is None else self.mask[which],
            source_rows=self.source_rows[which],
            images=images,
            draw={key: value[which] for key, value in self.draw.items()},
            num_images=len(images),
            index=self.index[which.to(self.index.device) if isinstance(which, Tensor) else which],
        )


class Mixture:
    """Assigns one pretext to each image, drawn by the pretexts' weights. Raises `UserError` if all weights are 0.

    With a `preference`, the damage is drawn too, by the preference's weights.
    """

    def __init__(self, pretexts: Mapping[str, Pretext], preference: Preference | None = None) -> None:
        self.pretexts = {name: pretext for name, pretext in pretexts.items() if pretext.weight > 0}
        if not self.pretexts:
            raise UserError(
                "no pretext to train on: give one a weight above 0, for example --pretexts.grid_mask.weight 1"
            )
        self.weights = torch.tensor([pretext.weight for pretext in self.pretexts.values()])  # (K,)
        self.preference = preference

    def assign(self, keys: Keys, usable: Tensor | None = None) -> Tensor:
        """(B,) int64: the pretext of each image, by number.

        Where `usable` (B, K) is False for the drawn pretext, another is drawn by weight among the usable ones. An image
        that suits no pretext keeps the first draw, and its loss is 0.
        """
        stream = keys.fold("mixture")
        first = stream.choice(self.weights)
        if usable is None or bool(usable.all()):
            return first
        weights = self.weights.to(keys.device) * usable  # (B, K)
        edges = weights.cumsum(1)
        point = stream.uniform()[:, None] * edges[:, -1:]
        second = (point >= edges).sum(1).clamp(max=len(self.weights) - 1)
        keep = usable.gather(1, first[:, None])[:, 0] | ~usable.any(1)
        return torch.where(keep, first, second)

    def hides_pixels(self, name: str) -> bool:
        """Return True if pretext `name` has a mask."""
        return type(self.pretexts[name]).mask is not Pretext.mask

    def prepare(self, images: Tensor, keys: Keys, usable: Tensor | None = None) -> tuple[Tensor, list[Part]]:
        """Damage images (B, C, H, W), each by its pretext; return (B', C, H, W) sorted by pretext, and the parts.

        The assignment is computed on the keys' device. With keys and `usable` (B, K; None: computed here) on the CPU
        there is no GPU synchronisation.
        """
        if usable is None:
            usable = torch.stack([pretext.usable(images) for pretext in self.pretexts.values()], dim=1)
        assigned, damage = self._draw_assignment(images, keys, usable.to(keys.device))
        index, keys = keys.index, keys.to(images.device)
        parts: list[Part] = []
        damaged: list[Tensor] = []
        start = 0
        for number, name in enumerate(self.pretexts):
            rows = (assigned == number).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            # a pretext without a repair draws its own damage: a preference for a class would reveal that class
            fixed = None if damage is None or not self.pretexts[name].repairs else send(damage[rows], images.device)
            own = index[rows]
            rows = send(rows, images.device)
            part, seen = self.prepare_all(name, images[rows], keys.select(rows), fixed)
            moved = slice(start, start + len(seen))
            own = own.repeat_interleave(len(seen) // len(own))
            parts.append(replace(part, rows=moved, source_rows=rows[part.source_rows], index=own))
            damaged.append(seen)
            start = moved.stop
        return torch.cat(damaged), parts

    def prepare_all(self, name: str, images: Tensor, keys: Keys, damage: Tensor | None = None) -> tuple[Part, Tensor]:
        """Damage every image by pretext `name`; return the part and (b, C, H, W), the instances of an image adjacent.

        `damage` (B,) fixes the damage of each image by its number in the pretext; every image is then one instance.
        """
        pretext = self.pretexts[name]
        shape, num_images = image_shape(images), len(images)
        source = torch.arange(len(images), device=images.device)
        count = pretext.num_instances(shape) if damage is None else 1
        if count > 1:
            source = source.repeat_interleave(count)
            images = images[source]
            instance = torch.arange(count, device=source.device).repeat(len(source) // count)
            keys = replace(keys.select(source), instance=instance)
        keys = keys.fold(name)
        draw = pretext.sample(keys, shape) if damage is None else pretext.sample_damage(keys, images, damage)
        mask = pretext.mask(draw, shape)
        # a fixed damage may hide another number of cells than a drawn one
        known = partial(pretext.hidden_tokens, shape) if damage is None else None
        part = Part(
            name=name,
            rows=slice(0, len(images)),
            mask=mask,
            hidden_tokens=known,
            pretext=pretext,
            source_rows=source,
            images=images,
            draw=draw,
            num_images=num_images,
            index=keys.index,
        )
        return part, pretext.corrupt(images, draw)

    def _draw_assignment(self, images: Tensor, keys: Keys, usable: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B,) the pretext of each image, and (B,) its damage within that pretext, None without a preference."""
        if self.preference is None:
            return self.assign(keys, usable), None
        shape = image_shape(images)
        counts = torch.tensor(count_damages(self.pretexts, shape), device=keys.device)  # (K,)
        of = torch.arange(len(counts), device=keys.device).repeat_interleave(counts)  # (D,) a damage's pretext
        chosen = self.preference.draw(keys, mixture_shares(self.pretexts, shape), usable[:, of])
        return of[chosen], chosen - (counts.cumsum(0) - counts)[of[chosen]]

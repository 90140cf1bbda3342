"""Several pretexts in one batch, one for each image: one pass of the encoder serves them all."""
# B images that come in, B' damaged instances that go out, b rows of one pretext

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
    """What one pretext damaged, as the request that its head answers: a contiguous slice of the mixed batch."""

    rows: slice  # in the mixed batch
    pretext: Pretext
    source_rows: Tensor  # (b,) int64: each instance's image among those that came in
    images: Tensor  # (b, C, H, W), undamaged
    draw: Draw
    num_images: int  # that the b instances were made of, as many of each

    def select(self, which: slice | Tensor) -> Part:
        """Return the instances `which` (n,) as a separate part, its rows counted from 0 and each an image."""
        images = self.images[which]
        return replace(
            self,
            rows=slice(0, len(images)),
            mask=None if self.mask is None else self.mask[which],
            source_rows=self.source_rows[which],
            images=images,
            draw={key: value[which] for key, value in self.draw.items()},
            num_images=len(images),
        )


class Mixture:
    """Gives each image one pretext, drawn in proportion to the pretexts' weights. Raises `UserError` if all are 0.

    A `preference` draws the damage as well, by its weights.
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
        """(B,) int64: each image's pretext, by number.

        `usable` (B, K) bool: an image whose pretext has nothing to learn from it is given another, drawn by weight
        among those that have; if none has, it keeps its own and carries no loss.
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
        """Whether pretext `name` draws a mask."""
        return type(self.pretexts[name]).mask is not Pretext.mask

    def prepare(self, images: Tensor, keys: Keys, usable: Tensor | None = None) -> tuple[Tensor, list[Part]]:
        """Damage each of the images (B, C, H, W) by its pretext: (B', C, H, W) sorted by pretext, and whose rows are
        whose.

        Who gets which is settled where the keys are. Keys and `usable` (B, K), if it is known, on the CPU spare a wait
        for the GPU that has the images.
        """
        if usable is None:
            usable = torch.stack([pretext.usable(images) for pretext in self.pretexts.values()], dim=1)
        assigned, damage = self._drawn(images, keys, usable.to(keys.device))
        keys = keys.to(images.device)
        parts: list[Part] = []
        damaged: list[Tensor] = []
        start = 0
        for number, name in enumerate(self.pretexts):
            rows = (assigned == number).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            # a question draws for itself: its preferred answers would give it away
            fixed = None if damage is None or not self.pretexts[name].repairs else send(damage[rows], images.device)
            rows = send(rows, images.device)
            part, seen = self.prepare_all(name, images[rows], keys.select(rows), fixed)
            moved = slice(start, start + len(seen))
            parts.append(replace(part, rows=moved, source_rows=rows[part.source_rows]))
            damaged.append(seen)
            start = moved.stop
        return torch.cat(damaged), parts

    def prepare_all(self, name: str, images: Tensor, keys: Keys, damage: Tensor | None = None) -> tuple[Part, Tensor]:
        """Pretext `name` for every image: the part and the damaged instances (b, C, H, W), an image's side by side.

        `damage` (B,) fixes each image's damage to that number of the pretext's; every image is then one instance.
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
        # a damage that is fixed may hide another number of cells than a draw does
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
        )
        return part, pretext.corrupt(images, draw)

    def _drawn(self, images: Tensor, keys: Keys, usable: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B,) each image's pretext, and the number of its damage if a preference draws that; `usable` (B, K) bool."""
        if self.preference is None:
            return self.assign(keys, usable), None
        shape = image_shape(images)
        counts = torch.tensor(count_damages(self.pretexts, shape), device=keys.device)  # (K,)
        of = torch.arange(len(counts), device=keys.device).repeat_interleave(counts)  # (D,) a damage's pretext
        chosen = self.preference.draw(keys, mixture_shares(self.pretexts, shape), usable[:, of])
        return of[chosen], chosen - (counts.cumsum(0) - counts)[of[chosen]]

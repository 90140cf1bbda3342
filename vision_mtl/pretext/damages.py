"""A choice of damages, of which one is drawn for each image: for a pretext whose target is not the undamaged image."""
# B images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contract import Draw, Pretext, Shape
from vision_mtl.pretext.nested import build_repairs, check_nested, own_draw, own_options

NONE = "none"
WHICH = "damage"  # the key of a draw: the number of each image's damage


class Damages:
    """The damages of an option: a mapping from `none` or a repair pretext to its options, weight included.

    `option` is the option's name in messages. Raises `UserError` for a pretext that repairs no pixels, and for options
    that have no effect here.
    """

    def __init__(self, given: Mapping[str, Any], option: str) -> None:
        self.option = option
        self.each: dict[str, Pretext | None] = {}  # without those of weight 0; None: the undamaged image
        weights = []
        for name, options in (given or {NONE: {}}).items():
            pretext, weight = self._read(name, own_options(option, name, options))
            if weight > 0:
                self.each[name] = pretext
                weights.append(weight)
        if not self.each:
            raise UserError(f"{option} must give a damage a weight above 0; found {dict(given)}.")
        self.weights = torch.tensor(weights)

    def _read(self, name: str, options: dict[str, Any]) -> tuple[Pretext | None, float]:
        if name == NONE:
            if options.keys() - {"weight"}:
                raise UserError(f"{self.option}.none takes weight alone; found {options}.")
            weight = options.get("weight", 1.0)
            if not isinstance(weight, int | float) or isinstance(weight, bool):
                raise UserError(f"{self.option}.none.weight must be a number; found {weight!r}.")
            return None, float(weight)
        pretext = build_repairs(self.option, {name: options})[name]
        if getattr(pretext, "fill", "mean") == "learned" or getattr(pretext, "instances_per_image", 1) != 1:
            raise UserError(f"{self.option}.{name}: fill=learned and instances_per_image have no use here.")
        return pretext, float(pretext.weight)

    def check(self, shape: Shape) -> None:
        """Raise `UserError` if images of this shape cannot be damaged so."""
        check_nested(self.option, {name: p for name, p in self.each.items() if p is not None}, shape)

    def sample(self, keys: Keys, shape: Shape) -> Draw:
        """Draw every image's damage: its number `damage` (B,), and the draws of all damages, each as `NAME.key`."""
        draw = {WHICH: keys.choice(self.weights)}
        for name, pretext in self.each.items():
            own = {} if pretext is None else pretext.sample(keys.fold(name), shape)
            draw |= {f"{name}.{key}": value for key, value in own.items()}
        return draw

    def mask(self, draw: Draw, shape: Shape) -> Tensor | None:
        """(B, 1, H, W) bool, True = hidden; None if no damage hides pixels."""
        found = None
        for number, (name, pretext) in enumerate(self.each.items()):
            own = None if pretext is None else pretext.mask(own_draw(draw, name), shape)
            if own is not None:
                own = own & (draw[WHICH] == number)[:, None, None, None]
                found = own if found is None else found | own
        return found

    def hidden_tokens(self, shape: Shape, grid: tuple[int, int]) -> int | None:
        """The number of hidden tokens of a grid (h, w); None if it is not the same for every damage and draw."""
        counts = {0 if pretext is None else pretext.hidden_tokens(shape, grid) for pretext in self.each.values()}
        return counts.pop() if len(counts) == 1 else None

    def apply(self, images: Tensor, draw: Draw, *, as_seen: bool = False) -> Tensor:
        """(B, C, H, W) images, each with its damage; `as_seen`: as a person should see it."""
        damaged = images
        for number, (name, pretext) in enumerate(self.each.items()):
            rows = (draw[WHICH] == number).nonzero()[:, 0]
            if pretext is None or len(rows) == 0:
                continue
            own = {key: value[rows] for key, value in own_draw(draw, name).items()}
            damage = pretext.picture if as_seen else pretext.corrupt
            damaged = damaged.index_copy(0, rows, damage(images[rows], own))
        return damaged

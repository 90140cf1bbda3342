"""Damage that a person chooses on the page, as a pretext with a chosen instead of a random draw.

Hidden cells, lost colour and lost resolution are chosen by hand, alone or together (as a `chain`); for other pretexts
of the run, one of their damages is chosen by number. A painted mask is a grid with one cell per pixel.
"""
# b = 1 image, C channels, H W pixels, n cells

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.rng import Keys
from vision_mtl.core.shapes import image_shape
from vision_mtl.discovery.skill import SCORE_SEED
from vision_mtl.inference.repairs import damage_images
from vision_mtl.pretext.chain import Chain
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext
from vision_mtl.pretext.downsample import Downsample
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Part

MASK, GREY, COARSE, CHAIN = "grid_mask", "decolorise", "downsample", "chain"
BY_HAND = (MASK, GREY, COARSE)  # in the order of a chain
NOT_SHOWN = ("embedding", "features")  # outputs of pretexts that need the images of a run


@dataclass(frozen=True)
class Damage:
    """The chosen damage: hidden `cells` of a `grid` (rows, columns) in raster order, `grey`, resolution / `factor`.

    Or only damage `number` of the pretext `name`.
    """

    grid: tuple[int, int] = (4, 4)
    cells: tuple[int, ...] = ()
    grey: bool = False
    factor: int = 1
    name: str | None = None
    number: int = 0

    @property
    def kinds(self) -> list[str]:
        """The pretexts that are chosen by hand."""
        return [k for k, on in zip(BY_HAND, (self.cells, self.grey, self.factor > 1), strict=True) if on]


def read_damage(sent: Any) -> Damage:
    """Return the damage of a request; raises `UserError` for a field that is unknown or of another type."""
    fields = _mapping("damage", sent, ("grid", "cells", "grey", "factor", "name", "number"))
    grid = _whole_numbers("damage.grid", fields.get("grid", [4, 4]))
    if len(grid) != 2 or min(grid) < 1:
        raise UserError(f"damage.grid must be [rows, columns], each 1 or more; found {grid}.")
    cells = tuple(sorted(set(_whole_numbers("damage.cells", fields.get("cells", [])))))
    if cells and not 0 <= cells[0] <= cells[-1] < grid[0] * grid[1]:
        raise UserError(f"damage.cells must lie in 0 to {grid[0] * grid[1] - 1}; found {cells[0]} to {cells[-1]}.")
    if not isinstance(fields.get("grey", False), bool):
        raise UserError(f"damage.grey must be true or false; found {fields['grey']!r}.")
    if not isinstance(fields.get("name"), str | None):
        raise UserError(f"damage.name must be a pretext's name or null; found {fields['name']!r}.")
    factor, number = _whole_numbers("damage.factor, number", [fields.get("factor", 1), fields.get("number", 0)])
    if factor < 1:
        raise UserError(f"damage.factor must be 1 (as it is) or more; found {factor}.")
    return Damage((grid[0], grid[1]), cells, fields.get("grey", False), factor, fields.get("name"), number)


def make_part(pretexts: Mapping[str, Pretext], damage: Damage, images: Tensor) -> Part | None:
    """Return the damaged images (1, C, H, W) as a part, with the options of the run's `pretexts`; None for no damage.

    Raises `UserError` for damage that does not suit the image: a grid that does not fit, or grey of a grey image.
    """
    if damage.name is not None:
        return _numbered(pretexts, damage.name, damage.number, images)
    if not damage.kinds:
        return None
    steps = {kind: by_hand(pretexts, kind, damage) for kind in damage.kinds}
    shape = image_shape(images)
    for pretext in steps.values():
        pretext.check(shape)
    if GREY in steps and not bool(steps[GREY].usable(images)):
        raise UserError("this image is grey: it has no colours to take away.")
    keys = Keys(SCORE_SEED, 0, torch.zeros(1, dtype=torch.int64, device=images.device))
    if len(steps) == 1:
        (kind, pretext), *_ = steps.items()
        return part_of(kind, pretext, images, pretext.sample(keys.fold(kind), shape) | _chosen(kind, damage, images))
    options = {kind: _chain_options(pretext) for kind, pretext in steps.items()}
    chain = Chain(steps=options)
    chosen = {f"{kind}.{key}": value for kind in steps for key, value in _chosen(kind, damage, images).items()}
    return part_of(CHAIN, chain, images, chain.sample(keys.fold(CHAIN), shape) | chosen)


def by_hand(pretexts: Mapping[str, Pretext], kind: str, damage: Damage) -> Pretext:
    """Return the run's pretext `kind`, or the default one, with the chosen grid or factor."""
    own = pretexts.get(kind) or PRETEXTS.get(kind)()
    if isinstance(own, GridMask):
        grid = f"{damage.grid[0]}x{damage.grid[1]}"
        how: Literal["one", "ratio"] = "one" if len(damage.cells) == 1 else "ratio"  # `one` hides exactly one
        return replace(own, grid=grid, hidden=how, instances_per_image=1)
    return replace(own, factor=damage.factor) if isinstance(own, Downsample) else own


def part_of(name: str, pretext: Pretext, images: Tensor, draw: Draw) -> Part:
    """Return images (1, C, H, W) with one draw of the pretext `name` as a part."""
    source = torch.arange(len(images), device=images.device)
    mask = pretext.mask(draw, image_shape(images))
    return Part(
        name=name,
        rows=slice(0, len(images)),
        mask=mask,
        pretext=pretext,
        source_rows=source,
        images=images,
        draw=draw,
        num_images=len(images),
        index=source,
    )


def own_draw(part: Part, kind: str) -> Draw:
    """Return the draw of step `kind` of a part that is a chain."""
    prefix = f"{kind}."
    return {key.removeprefix(prefix): value for key, value in part.draw.items() if key.startswith(prefix)}


def _numbered(pretexts: Mapping[str, Pretext], name: str, number: int, images: Tensor) -> Part:
    if name not in pretexts:
        raise unknown("pretext of this run", name, pretexts)
    pretext, shape = pretexts[name], image_shape(images)
    if pretext.output in NOT_SHOWN:
        raise UserError(f"{name} repairs and classifies nothing: it has nothing to show for one image.")
    count = len(pretext.damages(shape))
    if not 0 <= number < count:
        raise UserError(f"damage.number must be 0 to {count - 1}, a damage of {name}; found {number}.")
    if not bool(pretext.usable(images)):
        raise UserError(f"this image does not suit {name}: there is nothing to repair in it.")
    return damage_images(name, pretext, images, seed=SCORE_SEED, number=number)[0]


def _chosen(kind: str, damage: Damage, images: Tensor) -> Draw:
    """Return the chosen entries of a pretext's draw; the others are random."""
    if kind == MASK:
        cells = torch.zeros(1, damage.grid[0] * damage.grid[1], dtype=torch.bool, device=images.device)
        cells[0, list(damage.cells)] = True
        return {"cells": cells}
    return {"factor": torch.tensor([damage.factor], device=images.device)} if kind == COARSE else {}


def _chain_options(pretext: Pretext) -> dict[str, Any]:
    """Return the pretext's options, except its fill, which a chain does not use."""
    options = asdict(pretext)
    return options | {"fill": "mean"} if "fill" in options else options


def _mapping(name: str, value: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} must be an object; found {type(value).__name__}.")
    for key in value:
        if key not in known:
            raise unknown(f"field of {name}", key, known)
    return value


def _whole_numbers(name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or any(not isinstance(item, int) or isinstance(item, bool) for item in value):
        raise UserError(f"{name} must be whole numbers; found {str(value)[:80]}.")
    return value

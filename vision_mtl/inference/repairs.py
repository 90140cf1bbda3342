"""Damage any images by any damage that a trained head can undo, and measure the repairs."""
# B images, b damaged instances of them, C channels, H W pixels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vision_mtl.config.options import convert, options_of
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.rng import Keys
from vision_mtl.discovery.skill import squared_error
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.pretext.grid import parse_grids
from vision_mtl.pretext.grid_mask import GridMask
from vision_mtl.pretext.mixture import Mixture, Part


@dataclass(frozen=True)
class Repairs:
    """Repairs of b damaged instances: pictures (b, C, H, W) in [0, 1], and errors (b,).

    `damaged` has hidden pixels hatched, `prediction` is the network's complete picture, `repaired` the same with the
    visible pixels put back, `classic` the repair without learning. `scored` (b, 1, H, W) bool are the scored pixels;
    an error is the mean squared error over them.
    """

    original: Tensor
    damaged: Tensor
    prediction: Tensor
    repaired: Tensor
    classic: Tensor
    scored: Tensor
    error: Tensor
    classic_error: Tensor


def measure_repairs(part: Part, prediction: Tensor) -> Repairs:
    """Return the repairs of a part whose complete pictures (b, C, H, W) a network predicted."""
    pretext, images, draw = part.pretext, part.images, part.draw
    scored = pretext.scored(images, draw)
    repaired = torch.where(scored, prediction, images)
    classic = torch.where(scored, pretext.reference(images, draw), images)
    errors = (squared_error(found, images, scored) for found in (repaired, classic))
    return Repairs(images, pretext.picture(images, draw), prediction, repaired, classic, scored, *errors)


def pretext_with_options(
    model: SharedModel, name: str, trained: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]
) -> Pretext:
    """Return pretext `name` with the options it was `trained` with, after `changes`.

    Raises `UserError` for a pretext without a head, an unknown option or value, damage that does not fit the images,
    and for a change of an option that defines the trained head's output.
    """
    if name not in model.head_specs:
        PRETEXTS.file(name)  # raises for an unknown name, with the nearest
        raise UserError(
            f"the model has no head for pretext {name!r}: it was trained on {', '.join(model.head_specs) or 'none'}. "
            f"Train it: --stage pretrain --pretexts.{name}.weight 1."
        )
    known = {option.name: option for option in options_of(PRETEXTS.get(name)) if option.name != "weight"}
    for key in changes:
        if key not in known:
            raise unknown(f"option of {name}", key, known)
    values = {key: convert(known[key], _plain(value)) for key, value in changes.items()}
    before = {key: value for key, value in trained[name].items() if key != "weight"}
    if "instances_per_image" in known:
        before["instances_per_image"] = 1
    changed, as_trained = PRETEXTS.get(name)(**{**before, **values}), PRETEXTS.get(name)(**before)
    for key in (*as_trained.meaning, "learned_fill"):
        old, new = getattr(as_trained, key, None), getattr(changed, key, None)
        if old != new:
            raise UserError(
                f"{name}.{key} was {old} when the head was trained and defines its output: it cannot be {new}."
            )
    changed.check((model.backbone.in_chans, *model.backbone.image_size))
    return changed


def damage_number(pretext: Pretext, damage: str, shape: tuple[int, int, int]) -> int:
    """Return the number of the damage called `4x4/r0c2` or `x4`; raises `UserError` naming the nearest."""
    if pretext.output == "embedding":
        raise UserError("this pretext compares two random views of each image: it has no damage to name.")
    names = pretext.damages(shape)
    if damage not in names:
        raise unknown("damage", damage, names)
    return names.index(damage)


def cell_damage(pretext: Pretext, cell: tuple[int, int]) -> str:
    """Return the name of a damage that hides one cell, `4x4/r0c2` for row 0 and column 2 of a 4 x 4 grid.

    Raises `UserError` for a pretext without a grid, for several grids, and for a cell outside of the grid.
    """
    if not isinstance(pretext, GridMask):
        raise UserError("cell is for grid_mask, whose grids have cells; name other damage by damage=...")
    sizes = parse_grids(pretext.grid)
    if len(sizes) > 1:
        raise UserError(f"cell needs one grid: give grid=4, for example; found {pretext.grid}.")
    (rows, columns), (row, column) = sizes[0], cell
    if not (0 <= row < rows and 0 <= column < columns):
        raise UserError(f"cell must lie in a grid of {rows} x {columns}, rows and columns from 0; found {cell}.")
    return f"{rows}x{columns}/r{row}c{column}"


def damage_images(
    name: str, pretext: Pretext, images: Tensor, *, seed: int = 0, number: int | None = None
) -> tuple[Part, Tensor]:
    """Return images (B, C, H, W) in [0, 1] as a part, and the damaged instances (b, C, H, W), on the images' device.

    Damage is drawn from `seed` and each image's position in the batch; `number` fixes it to one of the pretext's.
    """
    keys = Keys(seed, 0, torch.arange(len(images), device=images.device))
    fixed = None if number is None else torch.full_like(keys.index, number)
    return Mixture({name: replace(pretext, weight=1.0)}).prepare_all(name, images, keys, fixed)


def _plain(value: Any) -> Any:
    """Return a grid (3, 5) as "3x5", other tuples as lists, and other values unchanged."""
    is_pair = isinstance(value, tuple) and len(value) == 2
    return f"{value[0]}x{value[1]}" if is_pair else list(value) if isinstance(value, tuple) else value

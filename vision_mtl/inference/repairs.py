"""Repairs of any images under any damage that a trained head can undo: pixels, errors and skill."""
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
    """What became of b damaged instances: pictures (b, C, H, W) in [0, 1], and errors (b,).

    `damaged` is as a person should see it, `prediction` the network's whole picture, `repaired` the same with the
    visible pixels put back, `classic` the repair without learning. `scored` (b, 1, H, W) bool are the pixels judged.
    Errors are mean squared ones over the scored pixels.
    """

    original: Tensor
    damaged: Tensor
    prediction: Tensor
    repaired: Tensor
    classic: Tensor
    scored: Tensor
    error: Tensor
    classic_error: Tensor


def measure_repairs(part: Part, whole: Tensor) -> Repairs:
    """A part that repairs pixels, and the whole picture (b, C, H, W) that a network made of it -> the repairs."""
    pretext, images, draw = part.pretext, part.images, part.draw
    scored = pretext.scored(images, draw)
    repaired = torch.where(scored, whole, images)
    classic = torch.where(scored, pretext.reference(images, draw), images)
    errors = (squared_error(found, images, scored) for found in (repaired, classic))
    return Repairs(images, pretext.picture(images, draw), whole, repaired, classic, scored, *errors)


def pretext_with_options(
    model: SharedModel, name: str, trained: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any]
) -> Pretext:
    """Pretext `name` with the options it was `trained` with, changed as `asked`: any damage that its head can undo.

    Raises `UserError` for a pretext without a head, an unknown option or value, a damage that does not fit the images,
    and for an option that the trained head's answer depends on.
    """
    if name not in model.head_specs:
        PRETEXTS.file(name)  # names the nearest, where there is none of this name
        raise UserError(
            f"the model has no head for pretext {name!r}: it was trained on {', '.join(model.head_specs) or 'none'}. "
            f"Train it: --stage pretrain --pretexts.{name}.weight 1."
        )
    known = {option.name: option for option in options_of(PRETEXTS.get(name)) if option.name != "weight"}
    for key in asked:
        if key not in known:
            raise unknown(f"option of {name}", key, known)
    values = {key: convert(known[key], _plain(value)) for key, value in asked.items()}
    before = {key: value for key, value in trained[name].items() if key != "weight"}
    if "instances_per_image" in known:
        before["instances_per_image"] = 1
    made, as_trained = PRETEXTS.get(name)(**{**before, **values}), PRETEXTS.get(name)(**before)
    for key in (*as_trained.meaning, "learned_fill"):
        there, here = (getattr(one, key, None) for one in (as_trained, made))
        if there != here:
            raise UserError(
                f"{name}.{key} was {there} when the head was trained, and its answer means nothing with {here}: leave "
                "it as it was."
            )
    made.check((model.backbone.in_chans, *model.backbone.image_size))
    return made


def damage_number(pretext: Pretext, damage: str, shape: tuple[int, int, int]) -> int:
    """The number of a damage by its name, as `4x4/r0c2` or `x4`; raises `UserError` naming the nearest."""
    if pretext.output == "embedding":
        raise UserError("this pretext compares two views of each image, which are drawn: it has no damage to name.")
    names = pretext.damages(shape)
    if damage not in names:
        raise unknown("damage", damage, names)
    return names.index(damage)


def cell_damage(pretext: Pretext, cell: tuple[int, int]) -> str:
    """The name `4x4/r0c2` of cell (0, 2), row and column from 0, of a pretext that hides cells of one grid.

    Raises `UserError` for another pretext, for several grids, and for a cell outside of the grid.
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
    """Images (B, C, H, W) in [0, 1] -> the part, and the damaged instances (b, C, H, W), on the images' device.

    The draw is that of `seed` and each image's place in the batch; `number` fixes it to that damage of the pretext's.
    """
    keys = Keys(seed, 0, torch.arange(len(images), device=images.device))
    fixed = None if number is None else torch.full_like(keys.index, number)
    return Mixture({name: replace(pretext, weight=1.0)}).prepare_all(name, images, keys, fixed)


def _plain(value: Any) -> Any:
    """(3, 5) -> "3x5": a grid of rows x columns as options have it."""
    is_pair = isinstance(value, tuple) and len(value) == 2
    return f"{value[0]}x{value[1]}" if is_pair else list(value) if isinstance(value, tuple) else value

"""Conversion of a selection to the preference of a run's mixture, with checks against the run's images and pretexts."""
# N images of the pool, R rows that differ, D damages of all pretexts

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import first_source
from vision_mtl.discovery.selection import Selection
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.preference import Preference, count_damages

Options = Mapping[str, Mapping[str, Any]]


def prefer(selection: Selection, pool: Pool, pretexts: Mapping[str, Pretext], options: Options) -> Preference:
    """Return the selection's weights for the pool's images under all damages of `pretexts`.

    `options` are the run's options of each pretext. Raises `UserError` if the selection was made from other images,
    another image size or other damages, or if it has no weight above 0.
    """
    _check(selection, pool, pretexts, options)
    columns = _columns_of_damages(pretexts, pool.shape)
    rows = _row_numbers(selection, pool)
    table = np.zeros((rows.max() + 1, sum(count_damages(pretexts, pool.shape))), np.float32)
    pairs = zip(selection.columns["pretext"], selection.columns["damage"], strict=True)
    places = [columns.get(pair, []) for pair in pairs]
    repeat = np.array([len(place) for place in places])
    table[np.repeat(rows, repeat), np.concatenate(places).astype(int)] = np.repeat(selection.columns["weight"], repeat)
    if not table.any():
        raise UserError(
            f"the selection leaves nothing to draw: none of its {len(rows):,} rows has a weight above 0 "
            f"(rule {selection.about['rule']}). Train discover for longer, or choose another --discover.select."
        )
    return Preference(torch.from_numpy(table), torch.from_numpy(_rows_of_images(selection, pool, rows)))


def _check(selection: Selection, pool: Pool, pretexts: Mapping[str, Pretext], options: Options) -> None:
    about = selection.about
    size = [pool.shape[1], pool.shape[2], pool.shape[0]]
    if size != about["image_size"]:
        there, here = (f"{h} x {w} pixels in {c} channels" for h, w, c in (about["image_size"], size))
        raise UserError(f"the selection was made on images of {there}; these are {here}. Run discover at this size.")
    known = dict(zip(pool.identities, range(len(pool)), strict=True))
    scored = np.unique(selection.columns["identity"][selection.of_images].astype(str))
    missing = [name for name in scored if name not in known]
    strangers = set(pool.sources) - set(about["sources"])
    if missing or strangers:
        named = str(missing[0]) if missing else f"the images of {min(strangers)}"
        raise UserError(
            f"the selection was made from other images: {len(missing)} of its {len(scored)} are not here and "
            f"{len(strangers)} sources here are not in it, first {named!r}. "
            "Give data.unlabelled and tasks as in discover."
        )
    for name in pretexts:
        before, now = (dict(found.get(name) or {}) for found in (about["pretexts"], options))
        # options that a selection is older than are not compared
        changed = [key for key in sorted(before.keys() - {"weight"}) if before[key] != now.get(key)]
        if name not in about["pretexts"] or changed:
            what = f"pretexts.{name}" + (f".{changed[0]}" if changed else "")
            values = [found.get(changed[0]) if changed else bool(found) for found in (before, now)]
            raise UserError(
                f"the selection was made with other damage: {what} was {values[0]} there and is {values[1]} here."
            )


def _columns_of_damages(
    pretexts: Mapping[str, Pretext], shape: tuple[int, int, int]
) -> dict[tuple[str, str], list[int]]:
    """(pretext, damage) -> its columns; `all` of a pretext without a repair has the columns of all its damages."""
    found: dict[tuple[str, str], list[int]] = {}
    start = 0
    for name, pretext in pretexts.items():
        damages = pretext.damages(shape)
        found |= {(name, damage): [start + number] for number, damage in enumerate(damages)}
        if not pretext.repairs:
            found[name, "all"] = list(range(start, start + len(damages)))
        start += len(damages)
    return found


def _row_numbers(selection: Selection, pool: Pool) -> np.ndarray:
    """(r,) the table's row for each row of the selection: first the sources, then the images in order."""
    source = np.array([pool.sources.index(name) for name in selection.columns["source"]])
    images = np.unique(selection.columns["index"], return_inverse=True)[1] - 1 + len(pool.sources)
    return np.where(selection.of_images, images, source)


def _rows_of_images(selection: Selection, pool: Pool, rows: np.ndarray) -> np.ndarray:
    """(N,) the table's row for each image of the pool: its own if it was scored, otherwise that of its source."""
    row = first_source(pool, np.arange(len(pool)))
    index = dict(zip(pool.identities, range(len(pool)), strict=True))
    scored = selection.of_images
    _, first = np.unique(selection.columns["index"][scored], return_index=True)
    images = [index[name] for name in selection.columns["identity"][scored][first]]
    row[images] = rows[scored][first]
    return row

"""Labels that are only the images' order: a row number, or the number of the folder, taken for something to learn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.targets import Target

FEWEST = 10  # labelled images; fewer may stand in order by chance


def order_warning(name: str, target: Target, identities: Sequence[str]) -> str | None:
    """What to say of a task whose labels follow the files' or the folders' order; `identities` are in the source's."""
    numbers = _numbers(target)
    if numbers is None:
        return None
    rows = np.flatnonzero(np.isfinite(numbers)).tolist()
    if len(rows) < FEWEST:
        return None
    names, values = [identities[row] for row in rows], numbers[rows]
    listed = list(range(len(rows)))
    orders = [listed, sorted(listed, key=lambda i: names[i]), sorted(listed, key=lambda i: _natural(names[i]))]
    if any(_is_count(values[order]) for order in orders):
        return (
            f"task {name!r}: its label only counts the files in their order, which no picture shows. "
            f"Was another column meant? (--tasks.{name}.label)"
        )
    folders = [str(PurePath(identity).parent) for identity in names]
    known = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    ranks = np.array([known[folder] for folder in folders], float)
    named = set(target.class_names) == {PurePath(folder).name for folder in known}  # the folders are the classes
    if len(known) > 1 and not named and len(set(values - ranks)) == 1:
        return (
            f"task {name!r}: its label is the number of the image's folder in alphabetical order. If the folders are "
            f"not its classes, another column was meant (--tasks.{name}.label)."
        )
    return None


def _numbers(target: Target) -> np.ndarray | None:
    """(n,) float, NaN where there is no label; None unless labels are numbers."""
    kind = label_kind(target.kind)
    if not kind.has_classes:
        return target.values.astype(float)
    if not kind.one_class or not target.class_names:
        return None
    try:
        of_class = np.array([float(text) for text in target.class_names])
    except ValueError:
        return None
    return np.where(target.values < 0, np.nan, of_class[target.values])


def _is_count(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool(steps[0] != 0 and (steps == steps[0]).all())


def _natural(text: str) -> list[str | int]:
    """Sorts `2.png` before `10.png`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]

"""Label leaks: labels that only number the files or folders, such as an index column taken for the label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.targets import Target

MIN_LABELLED = 10  # fewer labels may be in order by chance


def label_leak(name: str, target: Target, identities: Sequence[str]) -> str | None:
    """Return a warning if the labels of task `name` number its files or folders, else None.

    `identities` are the items' names in the order of the source.
    """
    numbers = _numbers(target)
    if numbers is None:
        return None
    rows = np.flatnonzero(np.isfinite(numbers)).tolist()
    if len(rows) < MIN_LABELLED:
        return None
    names, values = [identities[row] for row in rows], numbers[rows]
    listed = list(range(len(rows)))
    orders = [listed, sorted(listed, key=lambda i: names[i]), sorted(listed, key=lambda i: _natural(names[i]))]
    if any(_is_count(values[order]) for order in orders):
        return (
            f"task {name!r}: its label only counts the files in order, which a model cannot see in an image. "
            f"Did you mean another column (--tasks.{name}.label)?"
        )
    folders = [str(PurePath(identity).parent) for identity in names]
    known = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    ranks = np.array([known[folder] for folder in folders], float)
    named = set(target.class_names) == {PurePath(folder).name for folder in known}  # the folders are the classes
    if len(known) > 1 and not named and len(set(values - ranks)) == 1:
        return (
            f"task {name!r}: its label is the number of the image's folder in alphabetical order. If the folders are "
            f"not its classes, choose another column (--tasks.{name}.label)."
        )
    return None


def _numbers(target: Target) -> np.ndarray | None:
    """Return the labels as (n,) float, NaN for no label; None if they are not numbers."""
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
    """Return a sort key that puts `2.png` before `10.png`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]

"""From a source's name to its images in the store, its splits, groups and labels as the tasks ask for them."""
# N images, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.labels import apply_group, apply_label_from, apply_split
from vision_mtl.data.options import Data, Task
from vision_mtl.data.source import Item, open_source
from vision_mtl.data.store import Progress, Settings, Store, open_store

SHOWN = 20  # unreadable files named in the error
LABEL_FROM = "label_from:"  # column that holds what a task's regular expression found


@dataclass(frozen=True)
class Loaded:
    """A source with its readable items; `images` (N, H, W, C) uint8 and `hashes` (N,) have a row for each."""

    name: str
    items: list[Item]
    images: np.ndarray
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]
    warnings: list[str]


def load_source(
    name: str, data: Data, tasks: Mapping[str, Task], settings: Settings, progress: Progress | None
) -> Loaded:
    """Open the store of source `name`, and apply what the tasks on it say of labels, splits and groups."""
    root = Path(data.root).expanduser()
    source = open_source(name, root)
    items = source.items()
    if not items:
        raise UserError(f"source {name!r} holds no image.")
    store = open_store(
        name,
        source,
        items,
        settings,
        root,
        max_gb=data.max_store_gb,
        num_workers=data.num_workers,
        progress=progress,
    )
    warnings = _check_readable(name, store, data.skip_unreadable)
    if store.rebuilt:
        warnings.append(f"the store of {name} was damaged ({store.rebuilt}) and has been built anew.")
    kept = [items[i] for i in store.kept]
    for task_name, task in tasks.items():
        if task.source == name:
            kept = _apply_task(task_name, task, kept, name)
    return Loaded(name, kept, store.images if len(kept) == len(items) else store.images[store.kept], store.hashes,
                  store.unreadable, warnings)  # fmt: skip


def _check_readable(name: str, store: Store, skip: bool) -> list[str]:
    if not store.unreadable:
        return []
    listed = "\n".join(f"  {identity}: {reason}" for identity, reason in store.unreadable[:SHOWN])
    more = len(store.unreadable) - SHOWN
    listed += f"\n  ... and {more} more" if more > 0 else ""
    if not skip:
        raise UserError(
            f"{len(store.unreadable)} of {len(store.kept) + len(store.unreadable)} files of {name} cannot be read:\n"
            f"{listed}\n"
            "Mend or remove them, or leave them out with --data.skip_unreadable (the others are decoded and kept)."
        )
    if not len(store.kept):
        raise UserError(f"none of the {len(store.unreadable)} files of {name} can be read:\n{listed}")
    return [f"left out {len(store.unreadable)} unreadable files of {name}:\n{listed}"]


def _apply_task(task_name: str, task: Task, items: list[Item], source: str) -> list[Item]:
    if task.label_from is not None:
        items = apply_label_from(items, task.label_from, LABEL_FROM + task_name)
    if task.split is not None:
        items = apply_split(items, task.split, _base(source))
    if task.group is not None:
        items = apply_group(items, task.group)
    return items


def _base(source: str) -> Path:
    """The folder that a source's list files are looked for in."""
    path = Path(source.partition("/")[2]).expanduser()
    return path.parent if path.is_file() else path


def label_text(task_name: str, task: Task, source: Loaded) -> Sequence[str | None]:
    """Each item's label for the task as text, None where it has none. Raises `UserError` if the column is unclear."""
    if task.label_from is not None:
        column = LABEL_FROM + task_name
    else:
        columns = sorted({c for item in source.items for c in item.labels if not c.startswith(LABEL_FROM)})
        others = {task.split, task.group}
        column = task.label or _only_column(task_name, source.name, [c for c in columns if c not in others])
        if column not in columns:
            raise unknown(f"label column of task {task_name!r}", column, columns)
    return [item.labels.get(column) for item in source.items]


def _only_column(task_name: str, source: str, columns: list[str]) -> str:
    if len(columns) == 1:
        return columns[0]
    if not columns:
        raise UserError(
            f"task {task_name!r}: {source} has no labels. Put the images of each class into a folder of their own, or "
            f"give --tasks.{task_name}.label_from REGEX, whose first group is the label in a file's path."
        )
    raise UserError(
        f"task {task_name!r}: {source} has label columns {', '.join(columns)}; "
        f"choose one with --tasks.{task_name}.label."
    )


def class_names_of(texts: Sequence[str | None]) -> list[str]:
    """The classes in order: by number where all are numbers, else alphabetically."""
    found = {text for text in texts if text is not None}
    if all(_is_number(text) for text in found):
        return sorted(found, key=float)
    return sorted(found)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

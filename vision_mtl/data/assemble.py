"""Lists a source, with the labels, splits and groups that its tasks define, and loads its images.

Listing decodes nothing, so that errors in labels and splits are found before the images of a large set are decoded.
"""
# N images, H W pixels, C channels

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.conflicts import label_conflict, picture_numbers, place_conflicts
from vision_mtl.data.files import picture_key
from vision_mtl.data.findings import Finding, Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.labels import apply_group, apply_label_from, apply_split
from vision_mtl.data.masks import masks_in_folder, read_masks
from vision_mtl.data.one_value import ADVICE, folder_advice, one_value
from vision_mtl.data.options import Data, Task
from vision_mtl.data.source import Item, Source, Split, open_source
from vision_mtl.data.store import Progress, Settings, Store, open_store
from vision_mtl.data.stream import Stream, StreamedImages, is_streamed, open_stream
from vision_mtl.data.targets import Target, parse_labels

SHOWN = 20  # unreadable files named in the error
LABEL_FROM = "label_from:"  # prefix of the column with the labels that a task's regular expression found


@dataclass(frozen=True)
class Listed:
    """A source with its items, not decoded; labels, splits and groups are those of its tasks."""

    name: str
    source: Source
    items: list[Item]


@dataclass(frozen=True)
class Loaded:
    """A source with its readable items; `images` (N, H, W, C) uint8, stored or streamed, and `hashes` (N,) match them.

    `unreadable` are (identity, reason) of the other items.
    """

    name: str
    items: list[Item]
    images: np.ndarray | StreamedImages
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]

    @property
    def is_streamed(self) -> bool:
        """True if images are decoded when they are read."""
        return isinstance(self.images, StreamedImages)


def list_source(name: str, data: Data, tasks: Mapping[str, Task], findings: Findings) -> Listed:
    """Open source `name` and list its items, with the labels, splits and groups of its tasks.

    Raises `UserError`, and adds what the source found to `findings`.
    """
    own = {task_name: task for task_name, task in tasks.items() if task.source == name}
    source = open_source(name, Path(data.root).expanduser())
    items = _without_masks(source.items(), tasks)
    items = [item if item.path is None else replace(item, key=picture_key(item.path)) for item in items]
    findings.add(getattr(source, "findings", ()))
    _tell_unclear(getattr(source, "unclear", None), own, findings)
    items = _beside(name, items, data.other_folders if own else "unlabelled", findings)
    if not items:
        raise UserError(f"source {name!r} contains no image.")
    items = _apply_tasks(own, items, name)
    findings.add(place_conflicts(name, items))
    return Listed(name, source, items)


def _tell_unclear(unclear: Finding | None, own: Mapping[str, Task], findings: Findings) -> None:
    """Add what is unclear about a source's folders: an error if a task takes its labels from them, else a warning."""
    if unclear is None or (own and all(task.label_from and task.split for task in own.values())):
        return
    needed = any(task.label_from is None and task.masks is None for task in own.values())
    findings.add([unclear if needed else replace(unclear, severity="warning")])


def _beside(name: str, items: list[Item], use: str, findings: Findings) -> list[Item]:
    """Return the items without those beside the split folders, or with them as unlabelled ones; tells how many."""
    counts = Counter(item.beside for item in items if item.beside is not None)
    if not counts:
        return items
    number = counts.total()
    listed = ", ".join(f"{repr(f) if f != '.' else 'no folder'} ({count})" for f, count in sorted(counts.items()))
    text = f"{name}: {number} image{'s lie' if number > 1 else ' lies'} beside the split folders, in {listed}"
    if use == "unlabelled":
        findings.note(f"{text}; used for training without labels.", images=number)
        return items
    findings.warn(f"{text}; left out.", "--data.other_folders unlabelled trains on them without labels.", number)
    return [item for item in items if item.beside is None]


def check_labels(listed: Listed, tasks: Mapping[str, Task], findings: Findings) -> dict[str, str]:
    """Parse the labels of a listed source that are text; add an error for each task whose labels conflict.

    So is one for labels that are equal because a folder holds all class folders. Returns advice for each task of the
    source, in case that its training labels are equal.
    """
    advice = {}
    picture = picture_numbers(listed.items)
    identities = [item.identity for item in listed.items]
    for name, task in tasks.items():
        if task.source == listed.name and not label_kind(task.kind).is_dense:
            with findings.catching():
                target = parse_labels(name, task, label_text(name, task, listed), identities)
                advice[name] = ADVICE if task.label_from else folder_advice(name, listed.name, listed.items)
                single = one_value(name, target, target.labelled, advice[name])
                if single and advice[name] != ADVICE:  # else the splits may say more
                    findings.add([single])
                if conflict := label_conflict(name, target, listed.items, picture):
                    findings.add([conflict])
    return advice


def load_source(
    listed: Listed, data: Data, settings: Settings, findings: Findings, progress: Progress | None
) -> Loaded:
    """Open the store or stream of a listed source. Adds unreadable files to `findings`; raises `UserError`."""
    name, source, items, root = listed.name, listed.source, listed.items, Path(data.root).expanduser()
    if is_streamed(source, len(items), data, settings):
        _refuse_near(name, data)
        stream = open_stream(
            name,
            source,
            items,
            settings,
            root,
            num_workers=data.num_workers,
            skip_unreadable=data.skip_unreadable,
            progress=progress,
        )
        _check_readable(name, stream, data.skip_unreadable, findings)
        return Loaded(name, [items[i] for i in stream.kept], stream.images, stream.hashes, stream.unreadable)
    max_gb, workers = data.max_store_gb, data.num_workers
    store = open_store(name, source, items, settings, root, max_gb=max_gb, num_workers=workers, progress=progress)
    _check_readable(name, store, data.skip_unreadable, findings)
    if store.rebuilt:
        findings.warn(f"the store of {name} was damaged ({store.rebuilt}) and has been rebuilt.")
    kept = [items[i] for i in store.kept]
    images = store.images if len(kept) == len(items) else store.images[store.kept]
    return Loaded(name, kept, images, store.hashes, store.unreadable)


def _refuse_near(name: str, data: Data) -> None:
    if data.keep_near_duplicates_together:
        raise UserError(
            f"data.keep_near_duplicates_together needs stored images, but {name} is streamed. Leave the option out, or "
            "store the images with --data.stream false and a large enough --data.max_store_gb."
        )


def _check_readable(name: str, store: Store | Stream, skip: bool, findings: Findings) -> None:
    if not store.unreadable:
        return
    listed = "\n".join(f"  {identity}: {reason}" for identity, reason in store.unreadable[:SHOWN])
    more = len(store.unreadable) - SHOWN
    listed += f"\n  ... and {more} more" if more > 0 else ""
    count = len(store.unreadable)
    if not len(store.kept):
        raise UserError(f"none of the {count} files of {name} can be read:\n{listed}")
    if skip:
        findings.warn(f"left out {count} unreadable files of {name}:\n{listed}", images=count)
    else:
        findings.error(
            f"{count} of {len(store.kept) + count} files of {name} cannot be read:\n{listed}\n",
            "Repair or remove them, or leave them out with --data.skip_unreadable (the store of the others is kept).",
            count,
        )


def _without_masks(items: list[Item], tasks: Mapping[str, Task]) -> list[Item]:
    """Return the items that are not masks of a task: masks may lie in the source's folder."""
    folders = [mask_folder(task.masks, task.source).resolve() for task in tasks.values() if task.masks is not None]
    parents = {item.path.parent for item in items if item.path is not None} if folders else set()
    inside = {p for p in parents if any(Path(os.path.realpath(p)).is_relative_to(folder) for folder in folders)}
    found = [item for item in items if item.path is None or item.path.parent not in inside]
    if items and not found:
        raise UserError(f"masks {str(folders[0])!r} is the folder of the images; put the masks into another folder.")
    return found


def _apply_tasks(tasks: Mapping[str, Task], items: list[Item], source: str) -> list[Item]:
    """Return the items with the labels, splits and groups of the source's tasks.

    Raises `UserError` if two tasks disagree.
    """
    for name, task in tasks.items():
        if task.label_from is not None:
            items = apply_label_from(items, task.label_from, LABEL_FROM + name)
    grouped = {name: task.group for name, task in tasks.items() if task.group is not None}
    if len(set(grouped.values())) > 1:
        raise UserError(f"the tasks on {source} must agree on one group column; found {grouped}.")
    if grouped:
        items = apply_group(items, next(iter(grouped.values())))
    assigned: list[tuple[str, Split] | None] = [None] * len(items)  # (task that defines the split, split)
    splits = {name: task.split for name, task in tasks.items() if task.split is not None}
    for name, split in splits.items():
        for row, item in enumerate(apply_split(items, split, base_folder(source))):
            before = assigned[row]
            if before is not None and item.split is not None and before[1] != item.split:
                raise UserError(
                    f"{item.identity!r} of {source} is in {before[1]} by task {before[0]!r} and in {item.split} by "
                    f"task {name!r}: an image has the same split in all tasks."
                )
            assigned[row] = before or (None if item.split is None else (name, item.split))
    if not splits:
        return items
    pairs = zip(items, assigned, strict=True)
    return [
        item if item.beside is not None else replace(item, split=None if found is None else found[1])
        for item, found in pairs
    ]


def base_folder(source: str) -> Path:
    """Return the folder in which a source's list files and masks are searched."""
    path = Path(source.partition("/")[2]).expanduser()
    return path.parent if path.is_file() else path


def mask_folder(masks: str, source: str) -> Path:
    """Return the folder of option `masks`: relative to the working directory, or else to the source's folder."""
    folder = Path(masks).expanduser()
    return folder if folder.is_dir() else base_folder(source) / folder


def read_target(
    name: str, task: Task, source: Loaded, settings: Settings, num_workers: int, progress: Progress | None
) -> Target:
    """Return a task's labels, one row per item of its source. Raises `UserError` with the task and the fault."""
    identities = [item.identity for item in source.items]
    if not label_kind(task.kind).is_dense:
        return parse_labels(name, task, label_text(name, task, source), identities)
    if task.masks is not None:
        files = masks_in_folder(name, mask_folder(task.masks, task.source), source.items)
    else:
        base = base_folder(task.source)
        files = [None if text is None else base / text for text in label_text(name, task, source)]
    report = None if progress is None else (lambda done, total: progress(f"reading masks of {name}", done, total))
    return read_masks(name, task, source.items, files, settings, num_workers, report)


def label_text(task_name: str, task: Task, source: Listed | Loaded) -> Sequence[str | None]:
    """Return each item's label text for the task, or None. Raises `UserError` for a missing or ambiguous column."""
    if task.label_from is not None:
        column = LABEL_FROM + task_name
    else:
        columns = sorted({c for item in source.items for c in item.labels if not c.startswith(LABEL_FROM)})
        others = {task.split, task.group}
        column = task.label or _only_column(task_name, source.name, [c for c in columns if c not in others])
        if column not in columns:
            error = unknown(f"label column of task {task_name!r}", column, columns)
            raise UserError(f"{error} A column that is blank in every row does not count.")
    return [item.labels.get(column) for item in source.items]


def _only_column(task_name: str, source: str, columns: list[str]) -> str:
    if len(columns) == 1:
        return columns[0]
    if not columns:
        raise UserError(
            f"task {task_name!r}: {source} has no labels. Put the images of each class into a separate folder, or "
            f"give --tasks.{task_name}.label_from REGEX, whose first group is the label in a file's path."
        )
    raise UserError(
        f"task {task_name!r}: {source} has label columns {', '.join(columns)}; "
        f"choose one with --tasks.{task_name}.label."
    )

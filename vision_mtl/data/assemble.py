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
from vision_mtl.data.depth import ValueRange
from vision_mtl.data.files import picture_key
from vision_mtl.data.findings import Finding, Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.labels import apply_group, apply_label_from, apply_split, option_file
from vision_mtl.data.mask_files import MaskPlace, find_mask, mask_place, match_masks
from vision_mtl.data.masks import read_masks
from vision_mtl.data.one_value import ADVICE, folder_advice, one_value
from vision_mtl.data.open_images import Images, Opened, Opening, Pending, open_images
from vision_mtl.data.options import Data, Task
from vision_mtl.data.range_option import RangeOption, range_of_source
from vision_mtl.data.source import SOURCES, Item, Source, Split, has_columns, open_source, with_valid_text
from vision_mtl.data.spellings import without_blank_words, word_warnings
from vision_mtl.data.split_files import KeptSplits, is_split_file, read_splits, splits_of
from vision_mtl.data.store import Progress, Settings
from vision_mtl.data.stream import StreamedImages
from vision_mtl.data.targets import Target, parse_labels
from vision_mtl.data.value_ranges import KnownRanges

SHOWN = 20  # unreadable files named in the error
LABEL_FROM = "label_from:"  # prefix of the column with the labels that a task's regular expression found


@dataclass(frozen=True)
class Listed:
    """A source with its items, not decoded; labels, splits, groups and the range are those of its tasks."""

    name: str
    source: Source
    items: list[Item]
    tasks: dict[str, Task]  # those of the source whose label column can be read
    value_range: RangeOption | None = None


@dataclass(frozen=True)
class Loaded:
    """A source with its readable items; `images` (N, H, W, C), stored or streamed, and `hashes` (N,) match them.

    `unreadable` are (identity, reason) of the other items. A `pending` source has no images yet: their range is found
    on the training images.
    """

    name: str
    items: list[Item]
    images: Images
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]
    value_range: ValueRange | None = None
    pending: Pending | None = None

    @property
    def is_streamed(self) -> bool:
        """True if images are decoded when they are read."""
        return isinstance(self.images, StreamedImages)


def list_source(
    name: str, data: Data, tasks: Mapping[str, Task], findings: Findings, run_splits: Path | None = None
) -> Listed:
    """Open source `name` and list its items, with the labels, splits and groups of its tasks.

    `run_splits` is the file of splits of the run itself, if it is resumed. Raises `UserError`, and adds what the source
    found to `findings`.
    """
    own = {task_name: task for task_name, task in tasks.items() if task.source == name}
    source = open_source(name, Path(data.root).expanduser(), _image_column(name, data, own))
    earlier = data.split_rule == "independent" and getattr(source, "independent_items", None)
    listed_items = earlier() if earlier else source.items()
    items = [with_valid_text(item) for item in _without_masks(listed_items, tasks)]
    items = [item if item.path is None else replace(item, key=picture_key(item.path)) for item in items]
    findings.add(getattr(source, "findings", ()))
    _tell_unclear(getattr(source, "unclear", None), own, findings)
    items = _beside(name, items, data.other_folders if own else "unlabelled", findings)
    if not items:
        findings.raise_errors(even_if_kept=True)  # one of them is the reason
        raise UserError(f"source {name!r} contains no image.")
    readable = _with_label_columns(own, source, items, findings)
    files, splitting = _split_files(own, name, data, run_splits)
    items = _apply_tasks(splitting, items, name)
    for file in files:
        items = file.apply(items, name, findings)
    findings.add(place_conflicts(name, items))
    value_range = range_of_source(name, data.value_range, {key: task.value_range for key, task in own.items()})
    listed = Listed(name, source, items, readable, value_range)
    for task_name, task in readable.items():
        if _has_cells(task, name):
            word_warnings(task_name, task, _cells(task_name, task, listed), findings)
    return listed


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


def check_labels(listed: Listed, findings: Findings) -> dict[str, str]:
    """Parse the labels of a listed source that are text; add an error for each task whose labels conflict.

    So is one for labels that are equal because a folder holds all class folders. Returns advice for each task of the
    source, in case that its training labels are equal.
    """
    advice = {}
    picture = picture_numbers(listed.items)
    identities = [item.identity for item in listed.items]
    for name, task in listed.tasks.items():
        if not label_kind(task.kind).is_dense:
            with findings.catching():
                target = parse_labels(name, task, label_text(name, task, listed), identities)
                advice[name] = ADVICE if task.label_from else folder_advice(name, listed.name, listed.items)
                single = one_value(name, target, target.labelled, advice[name])
                if single and advice[name] != ADVICE:  # else the splits may say more
                    findings.add([single])
                if conflict := label_conflict(name, target, listed.items, picture):
                    findings.add([conflict])
    return advice


def check_image_option(sources: Sequence[str], data: Data) -> None:
    """Raise `UserError` if `data.image` is given, but none of the `sources` has columns."""
    if data.image is not None and not any(has_columns(name) for name in sources):
        raise UserError(
            f"data.image {data.image!r} names an image column, but {', '.join(sources)} has none: leave the option out."
        )


def _image_column(source: str, data: Data, tasks: Mapping[str, Task]) -> str | None:
    """Return the image column of a source with these `tasks`; None: the only one. Raises `UserError` if they differ."""
    chosen = {name: task.image for name, task in tasks.items() if task.image is not None}
    if len(set(chosen.values())) > 1:
        raise UserError(f"the tasks on {source} must agree on one image column (option image); found {chosen}.")
    if chosen:
        return next(iter(chosen.values()))
    return data.image if has_columns(source) else None


def _with_label_columns(
    tasks: Mapping[str, Task], source: Source, items: Sequence[Item], findings: Findings
) -> dict[str, Task]:
    """Return the tasks without those whose label column, or the only one, exists but holds no text or numbers.

    Adds an error for each of these.
    """
    readable = dict(tasks)
    unusable: Mapping[str, str] = getattr(source, "unusable", {})
    has_labels = any(item.labels for item in items)
    for name, task in tasks.items():
        any_column = task.label is None and task.label_from is None and task.masks is None and not has_labels
        wrong = [f"{column} ({what})" for column, what in unusable.items() if any_column or column == task.label]
        if wrong:
            del readable[name]
            findings.error(
                f"task {name!r}: these columns of {task.source} cannot be labels: {', '.join(wrong)}.",
                f"Choose another with --tasks.{name}.label, or write its values as text or numbers, one in each row.",
            )
    return readable


def load_source(
    listed: Listed,
    data: Data,
    settings: Settings,
    findings: Findings,
    progress: Progress | None,
    known: KnownRanges | None = None,
) -> Loaded:
    """Open the store or stream of a listed source. Adds unreadable files to `findings`; raises `UserError`.

    `known` are the ranges of the run to start from.
    """
    name, items = listed.name, listed.items
    opening = Opening(name, listed.source, items, settings, data, progress)
    opened = open_images(opening, listed.value_range, known)
    _check_readable(name, opened, data.skip_unreadable, findings)
    if opened.rebuilt:
        findings.warn(f"the store of {name} was damaged ({opened.rebuilt}) and has been rebuilt.")
    if opened.pending:
        opened.pending.warn_of_mixtures(findings)
    kept = [items[i] for i in opened.kept]
    return Loaded(name, kept, opened.images, opened.hashes, opened.unreadable, opened.value_range, opened.pending)


def open_pending(loaded: Loaded, is_train: np.ndarray, findings: Findings) -> Loaded:
    """Return the source with its images; those of a pending one are decoded now that `is_train` (N,) is known."""
    if loaded.pending is None:
        return loaded
    black = np.broadcast_to(np.zeros_like(loaded.images, shape=()), (len(loaded.items), *loaded.images.shape[1:]))
    with findings.catching():
        opened = loaded.pending.open(is_train)
        if opened.rebuilt:
            findings.warn(f"the store of {loaded.name} was damaged ({opened.rebuilt}) and has been rebuilt.")
        return replace(loaded, images=opened.images, value_range=opened.value_range, pending=None)
    return replace(loaded, images=black, pending=None)  # so that what else is wrong is found too


def _check_readable(name: str, store: Opened, skip: bool, findings: Findings) -> None:
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
    places = [_mask_place(task) for task in tasks.values() if task.masks is not None]
    parents = {item.path.parent for item in items if item.path is not None} if places else set()
    real = {parent: Path(os.path.realpath(parent)) for parent in parents}
    found = [i for i in items if i.path is None or not any(p.holds(real[i.path.parent] / i.path.name) for p in places)]
    if items and not found:
        raise UserError(
            f"masks {places[0].pattern!r} is the folder of the images; put the masks into another folder, or give a "
            "pattern of their names, such as 'FOLDER/*_mask.png'."
        )
    return found


def _split_files(
    tasks: Mapping[str, Task], source: str, data: Data, run_splits: Path | None
) -> tuple[list[KeptSplits], dict[str, Task]]:
    """Return the files of earlier runs that give a source's splits, and its tasks without those files.

    A resumed run's own splits replace those of the options, which it began with.
    """
    files, plain = {}, {}
    if data.split_file is not None:
        file = Path(data.split_file).expanduser()
        files[file] = KeptSplits(file, "data.split_file")
    for name, task in tasks.items():
        found = None if task.split is None else option_file(task.split, base_folder(source))
        if found is not None and is_split_file(found):
            files[found] = KeptSplits(found, f"tasks.{name}.split", only=True)
        plain[name] = replace(task, split=None) if found in files else task
    if run_splits is not None and splits_of(read_splits(run_splits), source) is not None:
        return [KeptSplits(run_splits, "the resumed run's")], plain
    return list(files.values()), plain


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


def _mask_place(task: Task) -> MaskPlace:
    return mask_place(task.masks or "", base_folder(task.source))


def read_target(
    name: str,
    task: Task,
    source: Loaded,
    settings: Settings,
    findings: Findings,
    num_workers: int,
    progress: Progress | None,
) -> Target:
    """Return a task's labels, one row per item of its source. Raises `UserError` with the task and the fault."""
    identities = [item.identity for item in source.items]
    if not label_kind(task.kind).is_dense:
        target = parse_labels(name, task, label_text(name, task, source), identities)
        for text in label_kind(task.kind).warnings(name, target.values, identities):
            findings.warn(text)
        return target
    if task.masks is not None:
        files, counts = match_masks(name, _mask_place(task), source.items, findings)
    else:
        base = base_folder(task.source)
        files = [None if text is None else find_mask(base, text) for text in label_text(name, task, source)]
        counts = {"unmatched_masks": 0, "images_without_mask": files.count(None)}
    report = None if progress is None else (lambda done, total: progress(f"reading masks of {name}", done, total))
    target = read_masks(name, task, source.items, files, settings, findings, num_workers, report)
    return replace(target, details={**target.details, **counts})


def label_text(task_name: str, task: Task, source: Listed | Loaded) -> Sequence[str | None]:
    """Return each item's label text for the task, or None. Raises `UserError` for a missing or ambiguous column."""
    texts = _cells(task_name, task, source)
    return without_blank_words(task, texts) if _has_cells(task, source.name) else texts


def _has_cells(task: Task, source: str) -> bool:
    """Return True if the task's labels are cells of a table, in which a word may mean no label."""
    kind = SOURCES.get(source.partition("/")[0])
    return task.label_from is None and task.masks is None and getattr(kind, "has_cells", False)


def _cells(task_name: str, task: Task, source: Listed | Loaded) -> Sequence[str | None]:
    """Return each item's label as it is written. Raises `UserError` for a missing or ambiguous column."""
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
            f"task {task_name!r}: {source} has no labels. Put the images of each class into a separate folder; if this "
            f"is the folder of one class, give the folder above; or give --tasks.{task_name}.label_from "
            "REGEX, whose first group is the label in a file's path."
        )
    raise UserError(
        f"task {task_name!r}: {source} has label columns {', '.join(columns)}; "
        f"choose one with --tasks.{task_name}.label."
    )

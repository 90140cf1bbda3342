"""The pool: every image of a run, decoded once, with its side, its labels and its cluster."""
# N images, S sources, B images of a batch, C channels, H W pixels

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.assemble import Loaded, class_names_of, label_text, load_source
from vision_mtl.data.duplicates import near_duplicates
from vision_mtl.data.options import Data, Task
from vision_mtl.data.source import SPLITS
from vision_mtl.data.splits import DROPPED, TEST, TRAIN, UNSET, VAL, assign_sides, units
from vision_mtl.data.store import Progress, Settings

RESIDENT_BYTES = 4 << 30  # smaller pools are read into memory: gathering is then several times faster
SHOWN = 5  # names given in a warning
NEAR_LIMIT = 60_000  # images of a source that near duplicates are looked for in: the search is quadratic


@dataclass(frozen=True)
class Pool:
    """Images are numbered 0 to N - 1; every array has a row for each.

    `member` says which sources name an image (one file named by two is one image); `split` is 0 train, 1 val, 2 test,
    -1 left out; `cluster` is the unit of every interval (a photograph's region, a person, a set of duplicates, or the
    image itself); `labels[task]` are classes, -1 = none.
    """

    blocks: list[np.ndarray]  # uint8 (n, H, W, C), one or several, together N images
    identities: list[str]
    paths: list[Path | None]
    sources: list[str]
    member: np.ndarray  # (N, S) bool
    split: np.ndarray  # (N,) int8
    cluster: np.ndarray  # (N,) int64
    labels: dict[str, np.ndarray]  # task -> (N,) int64
    class_names: dict[str, list[str]]
    warnings: list[str]
    details: dict[str, Any]

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        height, width, channels = self.blocks[0].shape[1:]
        return channels, height, width

    def indices(self, split: str, *, source: str | None = None, task: str | None = None) -> Tensor:
        """(n,) int64 in order: the images of `train`, `val` or `test`; of one source, or labelled for one task."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        rows = self.split == SPLITS.index(split)
        if source is not None:
            if source not in self.sources:
                raise unknown("source", source, self.sources)
            rows = rows & self.member[:, self.sources.index(source)]
        if task is not None:
            if task not in self.labels:
                raise unknown("task", task, self.labels)
            rows = rows & (self.labels[task] >= 0)
        return torch.from_numpy(np.flatnonzero(rows))

    def gather(self, indices: Tensor) -> Tensor:
        """(B,) -> (B, C, H, W) float32 in [0, 1], on the CPU."""
        chosen = indices.numpy()
        if len(self.blocks) == 1:
            pixels = self.blocks[0][chosen]
        else:
            edges = np.cumsum([0, *(len(block) for block in self.blocks)])
            which = np.searchsorted(edges, chosen, side="right") - 1
            pixels = np.empty((len(chosen), *self.blocks[0].shape[1:]), np.uint8)
            for number in np.unique(which):
                rows = which == number
                pixels[rows] = self.blocks[number][chosen[rows] - edges[number]]
        # the division, not a product with 1/255, so that 255 becomes exactly 1
        return (
            torch.from_numpy(pixels)
            .permute(0, 3, 1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format)
            .div_(255)
        )

    def summary(self) -> dict[str, Any]:
        """What `result.json` says of the data: images by source and side, labels by task, duplicates, bytes."""
        sources = {name: {side: len(self.indices(side, source=name)) for side in SPLITS} for name in self.sources}
        tasks = {
            task: {
                **{side: len(self.indices(side, task=task)) for side in SPLITS},
                "classes": len(self.class_names[task]),
            }
            for task in self.labels
        }
        size = [self.shape[1], self.shape[2]]
        return {"num_images": len(self), "image_size": size, "sources": sources, "tasks": tasks, **self.details}


def build_pool(
    data: Data,
    tasks: Mapping[str, Task],
    *,
    image_size: tuple[int, int],
    channels: int = 3,
    progress: Progress | None = None,
) -> Pool:
    """Open every source that `data` and `tasks` name, unite them, and draw the sides. Raises `UserError`."""
    names = list(dict.fromkeys([*(data.unlabelled or []), *(task.source for task in tasks.values())]))
    if not names:
        raise UserError("no images: give --data.unlabelled SOURCE, or a task with --tasks.NAME.source SOURCE.")
    settings = Settings(image_size, channels, data.fit)
    loaded = [load_source(name, data, tasks, settings, progress) for name in names]
    warnings = [warning for source in loaded for warning in source.warnings]
    return _unite(data, tasks, loaded, warnings, progress)


def _unite(
    data: Data, tasks: Mapping[str, Task], loaded: list[Loaded], warnings: list[str], progress: Progress | None
) -> Pool:
    rows, first_rows = _instances(loaded)  # each source's items -> instance; each instance's (source, item)
    count = len(first_rows)
    member = np.zeros((count, len(loaded)), bool)
    for column, row in enumerate(rows):
        member[row, column] = True
    labels, class_names = _labels(tasks, loaded, rows, count)
    exact = np.array([loaded[s].hashes[i] for s, i in first_rows], np.uint64)
    near = _near(data, loaded, rows, labels, count, progress)
    groups = _groups(loaded, rows, count)
    links = [exact, groups] + ([near] if data.keep_near_duplicates_together else [])
    unit = units(links)
    split = _sides(data, loaded, rows, unit, count)
    split = _drop_leaks(split, unit, exact, first_rows, loaded, warnings)
    pairs = _report_near(near, exact, groups, split, data, first_rows, loaded, warnings)
    _check_tasks(tasks, labels, split, class_names, warnings)
    details = {
        "exact_duplicates": int(count - len(np.unique(exact))),
        "near_duplicates": pairs,
        "unreadable": sum(len(source.unreadable) for source in loaded),
        "store_bytes": sum(source.images.nbytes for source in loaded),
    }
    identities = [f"{loaded[s].name}::{loaded[s].items[i].identity}" for s, i in first_rows]
    paths = [loaded[s].items[i].path for s, i in first_rows]
    sources = [source.name for source in loaded]
    blocks = _blocks(loaded, first_rows)
    cluster = units([exact, groups, near])
    return Pool(blocks, identities, paths, sources, member, split, cluster, labels, class_names, warnings, details)


def _instances(loaded: list[Loaded]) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """One instance for each file, however many sources name it; items without a file are their own."""
    known: dict[object, int] = {}
    first: list[tuple[int, int]] = []
    rows = []
    for s, source in enumerate(loaded):
        row = np.empty(len(source.items), np.int64)
        for i, item in enumerate(source.items):
            key = item.path or (s, item.identity)
            if key not in known:
                known[key] = len(first)
                first.append((s, i))
            row[i] = known[key]
        rows.append(row)
    return rows, first


def _blocks(loaded: list[Loaded], first: list[tuple[int, int]]) -> list[np.ndarray]:
    """The instances' pixels; instances are numbered source by source, so each block is part of one store."""
    by_source = [np.array([i for s, i in first if s == number], np.int64) for number in range(len(loaded))]
    size = sum(len(chosen) * source.images[0].nbytes for chosen, source in zip(by_source, loaded, strict=True))
    if size <= RESIDENT_BYTES:
        return [np.concatenate([source.images[i] for i, source in zip(by_source, loaded, strict=True) if len(i)])]
    whole = [len(i) == len(source.images) for i, source in zip(by_source, loaded, strict=True)]
    return [s.images if all_of_it else s.images[i] for i, s, all_of_it in zip(by_source, loaded, whole, strict=True)]


def _labels(
    tasks: Mapping[str, Task], loaded: list[Loaded], rows: list[np.ndarray], count: int
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    labels, class_names = {}, {}
    numbers = {source.name: number for number, source in enumerate(loaded)}
    for name, task in tasks.items():
        number = numbers[task.source]
        texts = label_text(name, task, loaded[number])
        class_names[name] = class_names_of(texts)
        classes = {text: k for k, text in enumerate(class_names[name])}
        found = np.full(count, -1, np.int64)
        for row, text in zip(rows[number], texts, strict=True):
            if text is not None:
                found[row] = classes[text]
        labels[name] = found
    return labels, class_names


def _groups(loaded: list[Loaded], rows: list[np.ndarray], count: int) -> np.ndarray:
    """(N,) int64: equal for images of one group of one source."""
    found = np.arange(count)
    numbers: dict[tuple[int, str], int] = {}
    for s, (source, row) in enumerate(zip(loaded, rows, strict=True)):
        for item, instance in zip(source.items, row, strict=True):
            if item.group is not None:
                found[instance] = numbers.setdefault((s, item.group), int(found[instance]))
    return found


def _near(
    data: Data,
    loaded: list[Loaded],
    rows: list[np.ndarray],
    labels: Mapping[str, np.ndarray],
    count: int,
    progress: Progress | None,
) -> np.ndarray:
    """(N,) int64: the representative of each image among its source's near duplicates."""
    found = np.arange(count)
    for source, row in zip(loaded, rows, strict=True):
        if len(row) > NEAR_LIMIT:
            continue
        report = None if progress is None else (lambda d, n, s=source: progress(f"near duplicates in {s.name}", d, n))
        representative = near_duplicates(source.images, {t: values[row] for t, values in labels.items()}, report)
        moved = representative != np.arange(len(row))
        found[row[moved]] = row[representative[moved]]
    return found


def _sides(data: Data, loaded: list[Loaded], rows: list[np.ndarray], unit: np.ndarray, count: int) -> np.ndarray:
    """(N,) int8. A unit that any source puts on the test side is on it everywhere, then validation, then training."""
    split = np.full(count, UNSET, np.int8)
    for source, row in zip(loaded, rows, strict=True):
        names = [f"{source.name}\0{item.group or item.identity}" for item in source.items]
        given = np.array([UNSET if i.split is None else SPLITS.index(i.split) for i in source.items], np.int8)
        side = assign_sides(
            names, unit[row], given, val_ratio=data.val_ratio, test_ratio=data.test_ratio, seed=data.split_seed
        )
        np.maximum.at(split, row, side)
    drawn = np.full(unit.max() + 1, UNSET, np.int8)
    official = np.zeros(count, bool)
    for source, row in zip(loaded, rows, strict=True):
        official[row[[item.split is not None for item in source.items]]] = True
    np.maximum.at(drawn, unit, split)
    return np.where(official, split, drawn[unit]).astype(np.int8)


def _drop_leaks(
    split: np.ndarray,
    unit: np.ndarray,
    exact: np.ndarray,
    first: list[tuple[int, int]],
    loaded: list[Loaded],
    warnings: list[str],
) -> np.ndarray:
    """Official splits may hold one picture on two sides: it stays where it is judged, and leaves the others."""
    _, content = np.unique(exact, return_inverse=True)
    highest = np.full(content.max() + 1, TRAIN, np.int8)
    np.maximum.at(highest, content, split)
    leaks = split < highest[content]
    if leaks.any():
        shown = ", ".join(loaded[s].items[i].identity for s, i in [first[n] for n in np.flatnonzero(leaks)[:SHOWN]])
        warnings.append(
            f"{int(leaks.sum())} images have an exact duplicate on a side that is held out and were left out: {shown}."
        )
    return np.where(leaks, DROPPED, split).astype(np.int8)


def _report_near(
    near: np.ndarray,
    exact: np.ndarray,
    groups: np.ndarray,
    split: np.ndarray,
    data: Data,
    first: list[tuple[int, int]],
    loaded: list[Loaded],
    warnings: list[str],
) -> int:
    """The number of near duplicates that are neither exact nor of one group; a warning if they lie on two sides."""
    pairs = np.flatnonzero((near != np.arange(len(near))) & (exact != exact[near]) & (groups != groups[near]))
    split_up = pairs[(split[pairs] != split[near[pairs]]) & (split[pairs] != DROPPED)]
    if len(split_up):
        name = lambda n: loaded[first[n][0]].items[first[n][1]].identity  # noqa: E731
        shown = ", ".join(f"{name(n)} and {name(near[n])}" for n in split_up[:3])
        warnings.append(
            f"{len(split_up)} near duplicates lie on two sides ({shown}); "
            "--data.keep_near_duplicates_together keeps them on one."
        )
    return len(pairs)


def _check_tasks(
    tasks: Mapping[str, Task],
    labels: Mapping[str, np.ndarray],
    split: np.ndarray,
    names: Mapping[str, list[str]],
    warnings: list[str],
) -> None:
    for task in tasks:
        counts = {
            side: Counter(labels[task][(split == side) & (labels[task] >= 0)].tolist()) for side in (TRAIN, VAL, TEST)
        }
        for side in (TRAIN, TEST):
            if not counts[side]:
                raise UserError(
                    f"task {task!r} has no labelled image for {SPLITS[side]} "
                    f"(of {int((labels[task] >= 0).sum())} labelled ones). Give it more images, "
                    "another --data.split_seed, or a split of its own."
                )
        unseen = sorted(counts[TEST].keys() - counts[TRAIN].keys())
        if unseen:
            shown = ", ".join(names[task][k] for k in unseen[:SHOWN])
            warnings.append(
                f"task {task!r}: {len(unseen)} classes are in the test images and not in the training ones: {shown}."
            )

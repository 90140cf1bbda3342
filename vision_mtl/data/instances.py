"""Merges loaded sources: an image that several sources hold is one instance with all its labels."""
# N instances, S sources

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.data.assemble import Loaded, read_target
from vision_mtl.data.conflicts import disagreeing, key_of, label_conflict, picture_numbers
from vision_mtl.data.depth import widened
from vision_mtl.data.duplicates import Images, near_duplicates
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Task
from vision_mtl.data.source import Item, movable_name
from vision_mtl.data.store import NEAR_FILES, Progress, Settings
from vision_mtl.data.stream import StreamedImages
from vision_mtl.data.targets import Target

RESIDENT_BYTES = 4 << 30  # smaller pools are read into memory: gathering is then several times faster
NEAR_LIMIT = 60_000  # largest number of images for the search for near duplicates, which takes quadratic time
NEAR_FORMAT = 1  # raise when the results of `duplicates.py` change


@dataclass(frozen=True)
class Instances:
    """The instances of S sources.

    `rows[s][i]` is the instance of item i of source s; `first[n]` is the first (source, item) of instance n.
    """

    loaded: list[Loaded]
    rows: list[np.ndarray]
    first: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.first)

    def item(self, number: int) -> Item:
        """Return the first item of instance `number`."""
        source, item = self.first[number]
        return self.loaded[source].items[item]

    def members(self) -> np.ndarray:
        """Return (N, S) bool: which sources hold an instance."""
        found = np.zeros((len(self), len(self.loaded)), bool)
        for column, row in enumerate(self.rows):
            found[row, column] = True
        return found

    def contents(self) -> np.ndarray:
        """Return (N,) uint64 that are equal for exact duplicates."""
        return np.array([self.loaded[s].hashes[i] for s, i in self.first], np.uint64)

    def groups(self) -> np.ndarray:
        """Return (N,) int64 that are equal for instances in the same group of a source."""
        found = np.arange(len(self))
        numbers: dict[tuple[int, str], int] = {}
        for s, (source, row) in enumerate(zip(self.loaded, self.rows, strict=True)):
            for item, instance in zip(source.items, row, strict=True):
                if item.group is not None:
                    found[instance] = numbers.setdefault((s, item.group), int(found[instance]))
        return found

    def names(self) -> list[list[str]]:
        """Return, for each source, the names that its items' splits are drawn from: the group's or else the item's."""
        starts = [f"{movable_name(source.name)}\0" for source in self.loaded]
        return [
            [f"{start}{item.group or item.identity}" for item in source.items]
            for start, source in zip(starts, self.loaded, strict=True)
        ]

    def blocks(self) -> list[np.ndarray | StreamedImages]:
        """Return the pixels in blocks; instances are numbered source by source, so a block is one store or stream."""
        chosen = [np.array([i for s, i in self.first if s == number], np.int64) for number in range(len(self.loaded))]
        parts = list(zip(chosen, self.loaded, strict=True))
        stored = [(rows, source.images) for rows, source in parts if isinstance(source.images, np.ndarray)]
        deepest = max((images.dtype for _, images in stored), key=lambda dtype: dtype.itemsize, default=np.dtype("u1"))
        num_values = sum(len(rows) * int(np.prod(images.shape[1:])) for rows, images in stored)
        in_memory = num_values * deepest.itemsize <= RESIDENT_BYTES
        if in_memory and len(stored) == len(parts):
            whole = np.empty((sum(map(len, chosen)), *stored[0][1].shape[1:]), deepest)
            ends = np.cumsum([len(rows) for rows in chosen])
            for end, (rows, images) in zip(ends, stored, strict=True):
                own = whole[end - len(rows) : end]
                if images.dtype == deepest:
                    np.take(images, rows, axis=0, out=own, mode="clip")  # into their place: copied once
                else:
                    own[:] = widened(images[rows])
            return [whole]
        return [_rows(source, rows, in_memory) for rows, source in parts]


def _rows(source: Loaded, rows: np.ndarray, in_memory: bool) -> np.ndarray | StreamedImages:
    """Return the images at `rows` (n,) of a source."""
    images = source.images
    if isinstance(images, StreamedImages):
        return images.part(rows)
    return images if len(rows) == len(images) and not in_memory else images[rows]


def unite(loaded: list[Loaded]) -> Instances:
    """Return the instances of the sources: items with the same file, or copies of the same image, are one instance.

    Copies are recognised by their content, and only if each source holds the image once: with two copies in one source
    (which may have different labels) it would be unclear which one is meant.
    """
    kept_apart = _kept_apart(loaded)
    known: dict[object, int] = {}
    copies: dict[int, int] = {}  # content -> instance, from the sources before
    first: list[tuple[int, int]] = []
    rows = []
    for s, source in enumerate(loaded):
        row = np.empty(len(source.items), np.int64)
        alone = _alone(source) - kept_apart
        for i, item in enumerate(source.items):
            key, content = _key(s, item), int(source.hashes[i])
            if key not in known and content in alone and content in copies:
                known[key] = copies[content]
            if key not in known:
                known[key] = len(first)
                first.append((s, i))
            row[i] = known[key]
        copies = {int(h): int(n) for h, n in zip(source.hashes, row, strict=True) if int(h) in alone} | copies
        rows.append(row)
    return Instances(loaded, rows, first)


def _key(source: int, item: Item) -> object:
    """Return what identifies an item's picture: the same file is one in all sources."""
    return key_of(item) if item.path is not None else (source, item.identity)


def _alone(source: Loaded) -> set[int]:
    """Return the contents that only one picture of the source has."""
    if len(source.hashes) == 0:
        return set()
    picture = picture_numbers(source.items)
    contents = np.unique(np.stack([source.hashes, picture.astype(np.uint64)], 1), axis=0)[:, 0]
    values, counts = np.unique(contents, return_counts=True)
    return set(values[counts == 1].tolist())


def _kept_apart(loaded: list[Loaded]) -> set[int]:
    """Return contents whose copies are not united: a source lists two of the files that other sources hold alone.

    Those two files would become one instance, with one of their two labels.
    """
    if len(loaded) < 3:
        return set()
    holders: dict[int, set[object]] = {}
    alone = [_alone(source) for source in loaded]
    for s, source in enumerate(loaded):
        for item, content in zip(source.items, source.hashes.tolist(), strict=True):
            if content in alone[s]:
                holders.setdefault(content, set()).add(_key(s, item))
    found = set()
    for s, source in enumerate(loaded):
        held: dict[int, set[object]] = {}
        for item, content in zip(source.items, source.hashes.tolist(), strict=True):
            if content not in alone[s] and content in holders and (key := _key(s, item)) in holders[content]:
                held.setdefault(content, set()).add(key)
        found |= {content for content, keys in held.items() if len(keys) > 1}
    return found


def read_targets(
    tasks: Mapping[str, Task],
    instances: Instances,
    settings: Settings,
    findings: Findings,
    num_workers: int,
    progress: Progress | None,
) -> dict[str, Target]:
    """Return each task's labels, one row per instance.

    A task whose labels are invalid is left out and its error added to `findings`. So is an error for a picture with
    different labels, which then has none.
    """
    numbers = {source.name: number for number, source in enumerate(instances.loaded)}
    targets = {}
    for name, task in tasks.items():
        if task.source not in numbers:
            continue  # none of its files can be read
        number = numbers[task.source]
        with findings.catching():
            target = read_target(name, task, instances.loaded[number], settings, findings, num_workers, progress)
            row = instances.rows[number]
            if conflict := label_conflict(name, target, instances.loaded[number].items, row):
                findings.add([conflict])
                target = target.keep(~np.isin(row, row[disagreeing(target, row)]))
            targets[name] = target.spread(row, len(instances))
    return targets


def near_representatives(
    instances: Instances,
    contents: np.ndarray,
    labels: Mapping[str, np.ndarray],
    settings: Settings,
    root: Path,
    progress: Progress | None,
) -> np.ndarray:
    """Return (N,) int64: each instance's representative among its near duplicates in all sources.

    With more than `NEAR_LIMIT` instances, or with streamed ones, the search covers each stored source below that limit
    separately. `contents` are (N,). Results are cached next to the store, because each run on the same images and
    labels needs them.
    """
    stored = [source.images for source in instances.loaded if isinstance(source.images, np.ndarray)]
    ranges = [f"{s.name} {s.value_range}" for s in instances.loaded if s.value_range is not None]
    if len(instances) <= NEAR_LIMIT and len(stored) == len(instances.loaded):

        def every_image() -> list[np.ndarray]:
            return [stored[s][i] for s, i in instances.first]

        return _near(every_image, contents, labels, settings, root, "all images", progress, ranges)
    found = np.arange(len(instances))
    for source, row in zip(instances.loaded, instances.rows, strict=True):
        images = source.images
        if len(row) > NEAR_LIMIT or isinstance(images, StreamedImages):
            continue
        own = {task: values[row] for task, values in labels.items()}
        every = partial(np.asarray, images)
        representative = _near(every, source.hashes, own, settings, root, source.name, progress, ranges)
        moved = representative != np.arange(len(row))
        found[row[moved]] = row[representative[moved]]
    return found


def _near(
    images: Callable[[], Images],
    contents: np.ndarray,
    labels: Mapping[str, np.ndarray],
    settings: Settings,
    root: Path,
    where: str,
    progress: Progress | None,
    ranges: Sequence[str],
) -> np.ndarray:
    """Return the representatives (n,) of images with `contents` (n,), from the cache or by a new search.

    Only a new search calls `images`.
    """
    file = root / "store" / f"{NEAR_FILES}{_near_key(contents, labels, settings, ranges)}.npy"
    found = _recall(file, len(contents))
    if found is None:
        report = None if progress is None else (lambda done, n: progress(f"near duplicates in {where}", done, n))
        found = near_duplicates(images(), labels, report)
        buffer = io.BytesIO()
        np.save(buffer, found.astype(np.int64))
        atomic_write_bytes(file, buffer.getvalue())
    return found


def _near_key(contents: np.ndarray, labels: Mapping[str, np.ndarray], settings: Settings, ranges: Sequence[str]) -> str:
    """Return a hash of everything that the near duplicates depend on."""
    digest = hashlib.blake2b(f"{NEAR_FORMAT} {settings}".encode(), digest_size=16)
    for text in ranges:  # of deep sources alone
        digest.update(text.encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(contents).tobytes())
    for values in sorted(np.ascontiguousarray(own, np.int64).tobytes() for own in labels.values()):
        digest.update(values)
    return digest.hexdigest()


def _recall(file: Path, count: int) -> np.ndarray | None:
    """Return (count,) int64 from a file, or None if it is missing or damaged."""
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (count,) and found.dtype == np.int64 else None

"""Streamed images: decoded during training, for sources that are too large for a store.

A first pass examines every file: it finds unreadable files and, by content, duplicates, so that splits are drawn as for
stored images. Its result, a few bytes per image, is cached until a file or shard changes. Streaming then needs no
further memory or disk.
"""
# N images, H W pixels, C channels

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes, disk_error
from vision_mtl.data.decode import UnreadableImage, decode_fitted
from vision_mtl.data.options import Data
from vision_mtl.data.reading import examine_item, name_of
from vision_mtl.data.source import EncodedSource, Item, Source, holds_files
from vision_mtl.data.store import STREAM_FILES, Progress, Settings, locked
from vision_mtl.data.threads import in_order, threads

FORMAT = 1  # raise when the meaning of the cached examination changes
GREY = 128  # replaces an image that becomes unreadable during training, with `skip_unreadable`


@dataclass(frozen=True)
class StreamedImages:
    """An array-like (N, H, W, C) of uint8 images that threads decode when rows are indexed.

    `failed` maps the identity of an item that could not be decoded, and became plain grey, to the reason.
    """

    name: str
    source: EncodedSource
    items: Sequence[Item]
    settings: Settings
    num_workers: int = 0  # threads that decode; 0: one per core
    skip_unreadable: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (N, H, W, C)."""
        return (len(self.items), *self.settings.shape)

    @property
    def nbytes(self) -> int:
        """0: no decoded image is kept."""
        return 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.read(rows, self.num_workers)

    def read(self, rows: np.ndarray, num_workers: int) -> np.ndarray:
        """Decode the images `rows` (n,) to (n, H, W, C).

        `num_workers` 0 uses one thread per core, 1 the caller's thread. Raises `UserError` for a file that cannot be
        decoded, unless `skip_unreadable`.
        """
        pixels = np.empty((len(rows), *self.settings.shape), np.uint8)
        workers = max(1, min(num_workers or os.cpu_count() or 1, len(rows)))

        def fill(part: int) -> None:
            for place in range(part, len(rows), workers):
                pixels[place] = self._decode(self.items[int(rows[place])])

        if workers == 1:
            fill(0)
        else:
            with threads(workers) as pool:
                list(pool.map(fill, range(workers)))  # list() raises the exceptions of the threads
        return pixels

    def part(self, rows: np.ndarray) -> StreamedImages:
        """Return the images at `rows` (n,), still streamed."""
        return StreamedImages(**{**vars(self), "items": [self.items[row] for row in rows]})

    def _decode(self, item: Item) -> np.ndarray:
        size, channels, fit = self.settings.image_size, self.settings.channels, self.settings.fit
        try:
            return decode_fitted(self.source.encoded(item), name_of(item), size, channels, fit)[0]
        except UnreadableImage as error:
            if not self.skip_unreadable:
                raise UserError(
                    f"{item.identity!r} of {self.name} cannot be decoded: {error.reason}. Repair it and run the same "
                    "command again, which resumes from the last checkpoint; or start a new run (with --init_from this "
                    "one to keep its weights) with --data.skip_unreadable, which replaces such images by plain grey."
                ) from error
            self.failed[item.identity] = error.reason
            return np.full(self.settings.shape, GREY, np.uint8)


@dataclass(frozen=True)
class Stream:
    """An open stream: `kept[i]` is the item number of image i, `hashes` (n,) uint64 are the images' contents.

    `unreadable` are (identity, reason) of the other items.
    """

    images: StreamedImages
    hashes: np.ndarray
    kept: np.ndarray
    unreadable: list[tuple[str, str]]


def is_streamed(source: Source, num_items: int, data: Data, settings: Settings) -> TypeGuard[EncodedSource]:
    """Return True if a source of image files is streamed: by option, or because its store would be too large.

    Other sources (packaged, drawn or torchvision's sets) are in memory anyway, so they are stored.
    """
    needed = num_items * int(np.prod(settings.shape))
    return holds_files(source) and (data.stream is True or (data.stream == "auto" and needed > data.max_store_gb * 1e9))


def open_stream(
    name: str,
    source: EncodedSource,
    items: Sequence[Item],
    settings: Settings,
    root: Path,
    *,
    num_workers: int = 0,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Stream:
    """Open the stream of `items`; examine them if there is no cached result. Raises `UserError`, e.g. for a full disk.

    `name` is the source's name for messages; `progress` is called from this thread.
    """
    report = progress or (lambda what, done, total: None)
    file = root / "store" / f"{STREAM_FILES}{_key(name, source, items)}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file, name, report):
            found = _recall(file, len(items))
            if found is None:
                found = _examine(name, source, items, num_workers, report)
                _remember(file, *found)
    except OSError as error:
        raise disk_error(file, len(items) * 8, error) from error
    hashes, reasons = found
    kept = np.array([row for row in range(len(items)) if row not in reasons], np.int64)
    images = StreamedImages(name, source, [items[row] for row in kept], settings, num_workers, skip_unreadable)
    return Stream(images, hashes[kept], kept, [(items[row].identity, reason) for row, reason in reasons.items()])


def _key(name: str, source: Source, items: Sequence[Item]) -> str:
    """Return a hash of the items and of their files' sizes and times, without reading the files."""
    digest = hashlib.blake2b(repr((FORMAT, type(source).__name__, source.version, name)).encode(), digest_size=12)
    for item in items:
        digest.update(f"\0{item.identity}\0{_status(item.path)}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _status(path: Path | None) -> str:
    if path is None:
        return ""  # inside an archive: the source's version changes with it
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _examine(
    name: str, source: EncodedSource, items: Sequence[Item], num_workers: int, report: Progress
) -> tuple[np.ndarray, dict[int, str]]:
    """Return ((N,) uint64 contents, row -> reason why it cannot be read)."""

    def examine(item: Item) -> int | str:
        try:
            return examine_item(source, item)
        except UnreadableImage as error:
            return error.reason

    hashes, reasons = np.zeros(len(items), np.uint64), {}
    with threads(num_workers) as pool:
        for row, found in enumerate(in_order(pool, examine, items)):
            if isinstance(found, str):
                reasons[row] = found
            else:
                hashes[row] = found
            report(f"reading {name}", row + 1, len(items))
    return hashes, reasons


def _remember(file: Path, hashes: np.ndarray, reasons: dict[int, str]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, hashes=hashes, broken=np.array(list(reasons), np.int64), reasons=np.array([*reasons.values(), ""]))
    atomic_write_bytes(file, buffer.getvalue())


def _recall(file: Path, count: int) -> tuple[np.ndarray, dict[int, str]] | None:
    """Return the cached result of an earlier pass, or None if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            hashes, broken, reasons = kept["hashes"], kept["broken"].tolist(), kept["reasons"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (hashes, dict(zip(broken, reasons[:-1], strict=True))) if hashes.shape == (count,) else None

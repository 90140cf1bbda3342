"""The decoded store: the resized images of a source in a memory-mapped file that all runs share.

Images are uint8; a source with deep images is stored as uint16, the levels of its range. The name of a store's folder
is a hash of everything its pixels depend on: the source's version, each image's content, the size, channels, fit and
range. Threads decode into a temporary folder, which is renamed when it is complete. A lock lets
concurrent runs decode only once. The store is verified when it is opened, and rebuilt if it is damaged.
"""
# N images, H W pixels, C channels

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes, atomic_write_json, disk_error
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.depth import DeepImage, ValueRange, is_deep, widened
from vision_mtl.data.processes import in_processes
from vision_mtl.data.reading import read_item
from vision_mtl.data.resize import Fit
from vision_mtl.data.source import Item, Source
from vision_mtl.data.threads import in_order, threads

NEAR_FILES = "near-"  # prefix of files with cached near duplicates, in the folder of the stores
STREAM_FILES = "stream-"  # prefix of files with the cached examination of a source, in the same folder
RANGE_FILES = "range-"  # prefix of files with the percentiles of a source's training images
RULE_FILES = "rules-"  # prefix of files with the errors of repairs without a network, in the same folder
DEEP_FILES = "deep-"  # prefix of files that hold the type of the numbers in a source that is not of 8 bits
FORMAT = 2  # raise when the meaning of the store's files changes
DEEP_FORMAT = 1  # the same for stores of deep images alone
BLOCK = 1 << 24  # bytes per checksum
VERIFIED_BYTES = 1 << 32  # larger stores are verified in evenly spread blocks of this total size
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Settings:
    """The form of stored images: (height, width), channels and fit; for a source with deep images, their range."""

    image_size: tuple[int, int]
    channels: int = 3
    fit: Fit = "stretch"
    is_deep: bool = field(default=False, repr=False)  # the text is a part of the keys of 8-bit images
    # None for deep images whose files declare their maximum
    value_range: ValueRange | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C) of a stored image."""
        return (*self.image_size, self.channels)

    @property
    def dtype(self) -> np.dtype:
        """The type of a stored number."""
        return np.dtype(np.uint16 if self.is_deep else np.uint8)

    @property
    def image_bytes(self) -> int:
        """The bytes of a stored image."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class Store:
    """An open store. `kept[i]` is the item number of image i; `unreadable` are (identity, reason) of other items."""

    folder: Path
    images: np.ndarray  # (N, H, W, C) uint8 or uint16, memory-mapped
    hashes: np.ndarray  # (N,) uint64, equal for exact duplicates, independent of the size
    kept: np.ndarray  # (N,) int64
    unreadable: list[tuple[str, str]]
    rebuilt: str | None = None  # the damage of the existing store, if it was rebuilt


def open_store(
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    root: Path,
    *,
    max_gb: float = 50.0,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> Store:
    """Open the store of `items`; build it if it is missing. Raises `UserError` above `max_gb` and for a full disk.

    `name` is the source's name for messages; `progress` is called from this thread. Raises `DeepImage` if an image does
    not have 8 bits and `settings` are not for deep ones, or lack their range; the next call raises it without decoding.
    """
    report = progress or (lambda what, done, total: None)
    needed = len(items) * settings.image_bytes
    if needed > max_gb * 1e9:
        raise UserError(
            f"the decoded store of {name} would take {needed / 1e9:.1f} GB ({len(items):,} images of "
            f"{settings.shape}), more than --data.max_store_gb {max_gb:g}. Raise it, lower --image_size, or let "
            "--data.stream auto decode image files during training."
        )
    parent = root / "store"
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(parent, needed, error) from error
    folder = parent / store_key(name, source, items, settings, parent, num_workers, report)
    with locked(folder, name, report):
        found, damage = _try_open(folder, settings)
        if found is not None:
            return found
        marker = parent / f"{DEEP_FILES}{folder.name}"
        if settings.value_range is None and marker.is_file():
            kind, _, maximum = marker.read_text("utf-8").partition(" ")
            raise DeepImage(kind, bool(maximum))
        _build(folder, name, source, items, settings, num_workers, report)
        opened, problem = _try_open(folder, settings)
        if opened is None:
            raise UserError(f"the store {str(folder)!r} cannot be read after writing it: {problem}. Check the disk.")
        return Store(**{**vars(opened), "rebuilt": damage})


def clean(root: Path) -> list[tuple[Path, int]]:
    """Delete all stores below `root` that no process is building; return (folder, bytes) of each deleted one."""
    deleted = []
    parent = root / "store"
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if folder.is_dir():
            lock = FileLock(folder.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            shutil.rmtree(folder)
            lock.release()
            deleted.append((folder, size))
    for pattern in (
        "*.lock",
        "contents.sqlite*",
        f"{NEAR_FILES}*.npy",
        f"{STREAM_FILES}*.npz",
        f"{DEEP_FILES}*",
        f"{RANGE_FILES}*.json",
        f"{RULE_FILES}*.npz",
    ):
        for leftover in parent.glob(pattern):
            leftover.unlink(missing_ok=True)
    return deleted


def store_key(
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    parent: Path,
    num_workers: int,
    report: Progress,
) -> str:
    """Return the name of the store's folder: a readable word and a hash of everything that its pixels depend on."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((FORMAT, type(source).__name__, source.version, settings.shape, settings.fit)).encode())
    if settings.is_deep:
        levels = settings.value_range and (settings.value_range.low, settings.value_range.high)
        digest.update(f"{DEEP_FORMAT} {levels}".encode())
    if not any(item.path for item in items):
        digest.update(valid_text(name).encode())
    contents = _contents([item.path for item in items if item.path], parent, num_workers, report, name)
    for item in items:
        digest.update(f"\0{item.identity}\0{contents[item.path] if item.path else ''}".encode())
    word = "".join(c if c.isalnum() else "-" for c in name.rstrip("/").rpartition("/")[2])[:24]
    return f"{word}-{digest.hexdigest()}"


def _contents(paths: Sequence[Path], parent: Path, num_workers: int, report: Progress, name: str) -> dict[Path, str]:
    """Return a hash of each file's bytes, cached by (path, size, modification time): a warm start reads no file."""
    if not paths:
        return {}
    stats = {}
    for path in paths:
        try:
            status = path.stat()
            stats[path] = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            stats[path] = "missing"
    with sqlite3.connect(parent / "contents.sqlite", timeout=60) as memory:
        memory.execute("CREATE TABLE IF NOT EXISTS contents (path TEXT PRIMARY KEY, status TEXT, hash TEXT)")
        known = {path: (status, value) for path, status, value in memory.execute("SELECT * FROM contents")}
        found = {p: known[_row(p)][1] for p in stats if known.get(_row(p), ("",))[0] == stats[p]}
        fresh = [path for path in stats if path not in found]
        with threads(num_workers) as pool:
            for done, (path, value) in enumerate(zip(fresh, pool.map(_content, fresh), strict=True), start=1):
                found[path] = value
                report(f"reading {name}", done, len(fresh))
        rows = [(_row(path), stats[path], found[path]) for path in fresh]
        memory.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", rows)
    return found


def _row(path: Path) -> str | bytes:
    """Return a path as SQLite holds it: as bytes if it is not text."""
    text = str(path)
    return text if valid_text(text) is text else os.fsencode(path)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"


def locked(folder: Path, name: str, report: Progress) -> AbstractContextManager[None]:
    """Acquire the store's lock, reporting if another process holds it; returns the context that releases it.

    The system releases the lock when its process ends.
    """
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"waiting for another process that decodes {name}", 0, 0)
        lock.acquire()
    return _AcquiredLock(lock)


class _AcquiredLock:
    """Releases an acquired lock at the end of a `with` block."""

    def __init__(self, lock: FileLock) -> None:
        self.lock = lock

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _build(
    folder: Path,
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    num_workers: int,
    report: Progress,
) -> None:
    """Decode all items into a temporary folder, then rename it."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    needed = len(items) * settings.image_bytes
    for stale in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)  # of a process that ended: this one holds the lock
    try:
        temporary.mkdir(parents=True)
        require_space(temporary, needed)
        hashes, reasons = _decode_into(temporary / "images.npy", name, source, items, settings, num_workers, report)
        unreadable = [
            (item.identity, reason) for item, reason in zip(items, reasons, strict=True) if reason is not None
        ]
        checksums = _checksums(temporary / "images.npy")
        kept = np.flatnonzero([reason is None for reason in reasons])
        np.savez(temporary / "index.npz", hashes=hashes, kept=kept)
        manifest = {"format": FORMAT, "source": name, "checksums": checksums, "unreadable": unreadable}
        manifest["index"] = zlib.crc32((temporary / "index.npz").read_bytes())
        atomic_write_json(temporary / "manifest.json", manifest)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except DeepImage as error:
        atomic_write_bytes(folder.parent / f"{DEEP_FILES}{folder.name}", _deep_text(error))
        raise
    except OSError as error:
        raise disk_error(folder, needed, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _deep_text(error: DeepImage) -> bytes:
    return f"{error.kind}{' maximum' if error.has_maximum else ''}".encode()


def _decode_into(
    file: Path,
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    num_workers: int,
    report: Progress,
) -> tuple[np.ndarray, list[str | None]]:
    """Write the pixels of all items to `file`; return ((N,) uint64 contents, reason or None for each item)."""
    images = np.lib.format.open_memmap(file, "w+", settings.dtype, (len(items), *settings.shape))
    _reserve(file)
    hashes = np.zeros(len(items), np.uint64)
    read = partial(_read, source, settings)

    def decode(number: int) -> str | None:
        pixels, hashes[number], reason = read(items[number])
        if pixels is not None:
            images[number] = pixels
        return reason

    reasons: list[str | None] = []
    if getattr(source, "in_processes", False):
        for number, (pixels, hashes[number], reason) in enumerate(in_processes(read, items, num_workers)):
            if pixels is not None:
                images[number] = pixels
            reasons.append(reason)
            report(f"decoding {name}", number + 1, len(items))
    else:
        with threads(num_workers) as pool:
            for reason in in_order(pool, decode, range(len(items))):
                reasons.append(reason)
                report(f"decoding {name}", len(reasons), len(items))
    images.flush()
    return hashes, reasons


def _read(source: Source, settings: Settings, item: Item) -> tuple[np.ndarray | None, int, str | None]:
    """Return (pixels or None, content, reason or None) of an item. Raises `DeepImage` as `read_item` does."""
    try:
        pixels, content = read_item(
            source, item, settings.image_size, settings.channels, settings.fit, settings.value_range
        )
    except UnreadableImage as error:
        return None, 0, error.reason
    if is_deep(pixels) and not settings.is_deep:
        raise DeepImage("uint16", has_maximum=True)
    return (widened(pixels) if settings.is_deep else pixels), content, None


def require_space(folder: Path, needed: int) -> None:
    """Raise `UserError` if the disk is too small: writing to a full disk through a memory map kills the process."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"the disk is full: {str(folder.parent)!r} has {free:,} bytes free and needs {needed:,}. "
                        "Free space, or choose another --data.root.")  # fmt: skip


def _reserve(file: Path) -> None:
    """Reserve the file's bytes on the disk, so that no other process fills it while this one writes."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported by the file system
                    raise


def _try_open(folder: Path, settings: Settings) -> tuple[Store | None, str | None]:
    """Return (store, None), or (None, damage) for a damaged store, or (None, None) if there is none."""
    if not folder.is_dir():
        return None, None
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        index_bytes = (folder / "index.npz").read_bytes()
        images = np.load(folder / "images.npy", mmap_mode="r")
        if zlib.crc32(index_bytes) != manifest["index"] or (images.shape[1:], images.dtype) != (
            settings.shape,
            settings.dtype,
        ):
            return None, "its index does not match"
        if _checksums(folder / "images.npy", expected=manifest["checksums"]) != manifest["checksums"]:
            return None, "its pixels have changed since they were written"
        with np.load(folder / "index.npz") as index:
            hashes, kept = index["hashes"], index["kept"]
    except (OSError, ValueError, KeyError) as error:
        return None, f"it cannot be read ({error})"
    unreadable = [(identity, reason) for identity, reason in manifest["unreadable"]]
    return Store(folder, images, hashes[kept], kept, unreadable), None


def _checksums(file: Path, expected: Sequence[int] | None = None) -> list[int]:
    """Return the CRC-32 of each block; in a large store, blocks that are not verified get their `expected` value."""
    blocks = -(-file.stat().st_size // BLOCK)
    chosen: Sequence[int] = range(blocks)
    if expected is not None:
        if len(expected) != blocks:
            return []
        chosen = sorted(set(np.linspace(0, blocks - 1, min(blocks, VERIFIED_BYTES // BLOCK)).astype(int).tolist()))
    sums = list(expected or [0] * blocks)
    with file.open("rb") as data:
        for block in chosen:
            data.seek(block * BLOCK)
            sums[block] = zlib.crc32(data.read(BLOCK))
    return sums

"""Examines the images of a source before they are resized: what is unreadable, equal or deep, and the values in it.

The result, a few bytes per image, is cached until a file or shard changes.
"""
# N images

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vision_mtl.core.files import atomic_write_bytes, disk_error
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.reading import Examined, examine_item, name_of
from vision_mtl.data.resize import check_channels
from vision_mtl.data.source import Item, Source
from vision_mtl.data.store import STREAM_FILES, Progress, locked
from vision_mtl.data.threads import in_order, threads

FORMAT = 2  # raise when the meaning of the cached examination changes


@dataclass(frozen=True)
class Examination:
    """What `examine_item` found out about N items; `reasons[i]` is why item i cannot be read, "" if it can.

    `kinds` (N,) are the types of deep images' numbers, "" for 8 bits; `lows` and `highs` (N,) their least and largest
    value, NaN where the file declares the maximum or has 8 bits.
    """

    contents: np.ndarray  # (N,) uint64
    channels: np.ndarray  # (N,) int64
    kinds: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    reasons: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(n,) int64: the readable items."""
        return np.flatnonzero(self.reasons == "")

    @property
    def is_deep(self) -> bool:
        """True if some readable image has more than 8 bits."""
        return bool((self.kinds[self.kept] != "").any())

    @property
    def needs_range(self) -> np.ndarray:
        """(N,) bool: deep images whose file declares no maximum."""
        return (self.reasons == "") & (self.kinds != "") & ~np.isnan(self.lows)

    def unreadable(self, items: Sequence[Item]) -> list[tuple[str, str]]:
        """Return (identity, reason) of the unreadable items."""
        rows = np.flatnonzero(self.reasons != "")
        return [(items[row].identity, str(self.reasons[row])) for row in rows.tolist()]


def examine(
    name: str,
    source: Source,
    items: Sequence[Item],
    channels: int,
    root: Path,
    *,
    decode_all: bool = False,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> Examination:
    """Return what the items are, from the cache or by reading them all; `decode_all` decodes JPEG files, too.

    `name` is the source's name for messages. Raises `UserError` for an image whose channels do not fit, and for a full
    disk.
    """
    report = progress or (lambda what, done, total: None)
    file = root / "store" / f"{STREAM_FILES}{_key(name, source, items, decode_all)}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file, name, report):
            found = _recall(file, len(items))
            if found is None:
                found = _examine(name, source, items, decode_all, num_workers, report)
                _remember(file, found)
    except OSError as error:
        raise disk_error(file, len(items) * 8, error) from error
    for row in found.kept.tolist():
        check_channels(int(found.channels[row]), channels, name_of(items[row]))
    return found


def _key(name: str, source: Source, items: Sequence[Item], decode_all: bool) -> str:
    """Return a hash of the items and of their files' sizes and times, without reading the files."""
    about = (FORMAT, type(source).__name__, source.version, name, decode_all)
    digest = hashlib.blake2b(repr(about).encode("utf-8", "surrogatepass"), digest_size=12)
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
    name: str, source: Source, items: Sequence[Item], decode_all: bool, num_workers: int, report: Progress
) -> Examination:
    def look(item: Item) -> Examined | str:
        try:
            return examine_item(source, item, decode_all)
        except UnreadableImage as error:
            return error.reason

    found: list[Examined | str] = []
    with threads(num_workers) as pool:
        for row, one in enumerate(in_order(pool, look, items)):
            found.append(one)
            report(f"reading {name}", row + 1, len(items))
    read = [Examined(0, 0) if isinstance(one, str) else one for one in found]
    return Examination(
        np.array([one.content for one in read], np.uint64),
        np.array([one.channels for one in read], np.int64),
        np.array([one.kind for one in read], np.str_),
        np.array([one.low for one in read], np.float64),
        np.array([one.high for one in read], np.float64),
        np.array([one if isinstance(one, str) else "" for one in found], np.str_),
    )


def _remember(file: Path, found: Examination) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **vars(found))
    atomic_write_bytes(file, buffer.getvalue())


def _recall(file: Path, count: int) -> Examination | None:
    """Return the cached result of an earlier pass, or None if it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            found = Examination(**{field.name: kept[field.name] for field in fields(Examination)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if found.contents.shape == (count,) else None

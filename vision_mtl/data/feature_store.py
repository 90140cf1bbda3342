"""Numbers computed once for each image of a pool, in a memory-mapped file next to the decoded store.

A file is filled in chunks. The checksum of each finished chunk is written after it, so that an interrupted computation
continues with the next one, and a damaged chunk is computed again. A lock lets concurrent runs compute only once.
"""
# N images, n images of a chunk

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_mtl.core.files import atomic_write_json, disk_error
from vision_mtl.data.store import Progress, locked, require_space

CHUNK = 256  # images
PREFIX = "features-"  # of a folder of features, in the folder of the stores
NUMBERS, MANIFEST = "features.npy", "manifest.json"
Fill = Callable[[int, int], np.ndarray]  # numbers of the first image and past the last -> (n, ...) float16


@dataclass(frozen=True)
class Features:
    """`values` (N, ...) float16, the seconds that computing them took in all, and if they were all there before."""

    values: np.ndarray
    seconds: float
    cached: bool


def open_features(
    root: Path, key: str, shape: Sequence[int], fill: Fill, what: str, progress: Progress | None = None
) -> Features:
    """Return the features of `shape` (N, ...) stored under `key` below `root`; `fill` computes those that are missing.

    `key` is a hash of everything that the features depend on; `what` names them in messages. Raises `UserError` if they
    cannot be written.
    """
    report = progress or (lambda what, done, total: None)
    folder = root / "store" / f"{PREFIX}{key}"
    needed = 2 * int(np.prod(shape))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, what, report):
            return _filled(folder, tuple(shape), fill, what, report)
    except OSError as error:
        raise disk_error(folder, needed, error) from error


def features_in_memory(shape: Sequence[int], fill: Fill, what: str, progress: Progress | None = None) -> Features:
    """Return features of `shape` (N, ...) as `open_features` does, without any file."""
    begin, values = time.perf_counter(), np.empty(tuple(shape), np.float16)
    for start in range(0, shape[0], CHUNK):
        if progress is not None:
            progress(what, start, shape[0])
        values[start : start + CHUNK] = fill(start, min(start + CHUNK, shape[0]))
    return Features(values, time.perf_counter() - begin, cached=False)


def _filled(folder: Path, shape: tuple[int, ...], fill: Fill, what: str, report: Progress) -> Features:
    sums, seconds = _read_manifest(folder / MANIFEST)
    values = _open(folder / NUMBERS, shape)
    starts = range(0, shape[0], CHUNK)
    sums = (sums + [None] * len(starts))[: len(starts)]
    missing = [n for n, start in enumerate(starts) if sums[n] != zlib.crc32(values[start : start + CHUNK].tobytes())]
    for done, number in enumerate(missing):
        report(what, done * CHUNK, min(len(missing) * CHUNK, shape[0]))
        before = time.perf_counter()
        start, stop = starts[number], min(starts[number] + CHUNK, shape[0])
        found = fill(start, stop)
        values[start:stop] = found
        values.flush()
        sums[number] = zlib.crc32(found.tobytes())
        seconds += time.perf_counter() - before
        atomic_write_json(folder / MANIFEST, {"seconds": seconds, "checksums": sums})
    return Features(np.load(folder / NUMBERS, mmap_mode="r"), seconds, not missing)


def _open(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """Return the file's numbers to be written; a new file if there is none, or if it is of another form."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = np.lib.format.open_memmap(file, "r+")
        if found.shape == shape and found.dtype == np.float16:
            return found
    except (OSError, ValueError):
        pass
    require_space(file.parent, 2 * int(np.prod(shape)))
    return np.lib.format.open_memmap(file, "w+", np.float16, shape)


def _read_manifest(file: Path) -> tuple[list[int | None], float]:
    try:
        found = json.loads(file.read_text("utf-8"))
        return list(found["checksums"]), float(found["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], 0.0

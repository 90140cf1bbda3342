"""Atomic writes: into a temporary file in the same folder, flushed to disk, then renamed in one step."""

from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from vision_mtl.core.errors import UserError

TOO_MANY = (errno.EMFILE, errno.ENFILE)
# errors of the machine (limits, full disk, permissions), not of the program
MACHINE = (*TOO_MANY, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`; after a crash `path` holds either its old content or all of the new.

    Raises `UserError` with the path and the bytes needed if the disk is full or the folder is not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise disk_error(path, len(data), error) from error
    finally:
        with suppress(OSError):  # the folder may not exist
            temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a new file name survives a power loss; ignored where the file system cannot."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, as `atomic_write_bytes` does; lone surrogates become escapes, which JSON reads back."""
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, as `atomic_write_bytes` does. Raises `ValueError` for NaN and infinity."""
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def disk_error(path: Path, needed: int, error: OSError) -> UserError:
    """Return the error for a failed write: its text gives the path, the bytes needed, the cause and what to do."""
    wanted = f"cannot write {needed:,} bytes to {str(path)!r}" if needed else f"cannot write {str(path)!r}"
    elsewhere = "choose another folder with --run_dir (results) or --data.root (images), and run the same command again"
    meaning: dict[int | None, str] = {
        errno.ENOSPC: f"the disk is full: {wanted}. Free space there, or {elsewhere}.",
        errno.EDQUOT: f"the disk quota is used up: {wanted}. Free space there, or {elsewhere}.",
        errno.EFBIG: f"the file size limit (ulimit -f) is reached: {wanted}. Raise the limit, or {elsewhere}.",
        errno.EROFS: f"cannot write {str(path)!r}: the file system is read-only. Mount it for writing, or {elsewhere}.",
        errno.EACCES: f"cannot open {str(path)!r}: {error.strerror}. Change its permissions, or {elsewhere}.",
    }
    if error.errno in TOO_MANY:
        return too_many_files(path)
    return UserError(meaning.get(error.errno, f"cannot write {str(path)!r}: {error.strerror or error}."))


def too_many_files(path: Path | str) -> UserError:
    """Return the error for the limit on open files; the file at `path` itself is in order."""
    return UserError(
        f"too many open files: cannot open {str(path)!r}. Raise the limit (ulimit -n 4096), or lower "
        "--data.num_workers, and run the same command again."
    )

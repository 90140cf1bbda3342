"""Files that are whole or absent: written beside their name, flushed, then renamed over it in one step."""

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
# what the machine refuses, whichever file it was: no fault of the program that asked
MACHINE = (*TOO_MANY, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`; after a crash at any moment `path` holds its old content or all of the new.

    Raises `UserError` naming the path and the bytes needed if the disk is full, or if the folder cannot be written.
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
        with suppress(OSError):  # not even its folder may be there
            temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a new name outlive a loss of power; file systems without this promise are left to their own."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process had begun to write into `folder` under a temporary name."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` for text, in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON. NaN and infinity are refused with `ValueError`: they are not JSON."""
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def disk_error(path: Path, needed: int, error: OSError) -> UserError:
    """What a failed write means, in words that name the path, the bytes needed and what to do."""
    wanted = f"{needed:,} bytes were to be written to {str(path)!r}" if needed else f"{str(path)!r} cannot be written"
    elsewhere = "choose another place with --run_dir (results) or --data.root (images), and run the same command again"
    meaning: dict[int | None, str] = {
        errno.ENOSPC: f"the disk is full: {wanted}. Free space there, or {elsewhere}.",
        errno.EDQUOT: f"the disk is full, for you: your quota is used up; {wanted}. Free space there, or {elsewhere}.",
        errno.EFBIG: f"a file may not grow so large here (ulimit -f): {wanted}. Raise the limit, or {elsewhere}.",
        errno.EROFS: f"cannot write {str(path)!r}: the file system is read-only. Mount it for writing, or {elsewhere}.",
        errno.EACCES: f"{str(path)!r} may not be opened: {error.strerror}. Change its rights, or {elsewhere}.",
    }
    if error.errno in TOO_MANY:
        return too_many_files(path)
    return UserError(meaning.get(error.errno, f"cannot write {str(path)!r}: {error.strerror or error}."))


def too_many_files(path: Path | str) -> UserError:
    """The process may not open another file: nothing is wrong with the one that it met."""
    return UserError(
        f"too many open files: {str(path)!r} could not be opened. Raise the limit (ulimit -n 4096), or lower "
        "--data.num_workers, and run the same command again."
    )

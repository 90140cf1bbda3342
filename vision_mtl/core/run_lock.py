"""The run lock: one process at a time in a run's folder.

The lock is a file lock of the operating system on `.lock`, which the system releases when the process ends, even if it
is killed. `.holder.json` names the process that holds the lock, for the error message of a second process.
On file systems without locks (some network ones) `.holder.json` itself is the lock. A holder on this machine that no
longer runs is then ignored. A holder on another machine cannot be checked, so the folder is refused and the error names
the holder. Network file systems with locks (NFS 4, NFS 3 with lockd) do not need this fallback.
"""

from __future__ import annotations

import errno
import json
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json, disk_error

LOCK, HOLDER = ".lock", ".holder.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """Locks `folder` from construction until `release`. Raises `UserError` if another process holds the lock.

    `stale` is a message about an earlier process that ended without releasing the lock, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, FileLock(folder / LOCK)
        before = _read(folder / HOLDER)
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise _refusal(folder, before) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise disk_error(folder, 0, error) from error
            if before is not None and not _is_over(before):
                raise _refusal(folder, before) from None
        self.stale = None if before is None else f"{_name(before)}, ended without closing its run; its lock is void."
        atomic_write_json(folder / HOLDER, _own())

    def release(self) -> None:
        """Release the lock. The file `.lock` stays, because removing it could let two processes in at once."""
        (self.folder / HOLDER).unlink(missing_ok=True)
        self.lock.release()


def _own() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}


def _read(path: Path) -> dict[str, Any] | None:
    """Return the holder's host, process id and start time, or None if the file is missing or damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {key: found[key] for key in ("host", "process", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_over(holder: dict[str, Any]) -> bool:
    """Return True if the holder ran on this machine and has ended."""
    if holder["host"] != platform.node():
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:  # it runs, as another user
        return False
    return False


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['process']} on {holder['host']}, started {holder['since']}"


def _refusal(folder: Path, holder: dict[str, Any] | None) -> UserError:
    who = "" if holder is None else f" ({_name(holder)})"
    return UserError(
        f"another process is running in {str(folder)!r}{who}; wait for it, stop it, or give another --run_dir. "
        f"(On a network file system without locks, if you are sure that it has ended, delete {HOLDER} there.)"
    )

"""One process at a time in a run's folder.

The claim is a lock of the operating system on `.lock`, which ends with its process however that ends, so a killed run
blocks nobody. Beside it `.holder.json` says who has it: for the message to a second process, and for file systems
without such locks (some network ones), where the file itself is the claim. There a holder on this machine that no
longer runs is passed over; whether one on another machine does cannot be seen from here, so it is refused by name.
Network file systems that share locks between machines (NFS 4, NFS 3 with lockd) need nothing of the kind.
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
    """Holds `folder` from the moment it is made until `release`. Raises `UserError` if another process holds it.

    `stale` is what to say of a process that left the folder without releasing it, or None.
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
        """Let another process use the folder. The lock's file stays: removing it would let two in at once."""
        (self.folder / HOLDER).unlink(missing_ok=True)
        self.lock.release()


def _own() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}


def _read(path: Path) -> dict[str, Any] | None:
    """Who says that the folder is theirs, or None."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {key: found[key] for key in ("host", "process", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether a holder is known to have ended: only of one on this machine can that be said."""
    if holder["host"] != platform.node():
        return False
    try:
        os.kill(int(holder["process"]), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:  # it runs, for somebody else
        return False
    return False


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['process']} on {holder['host']}, started {holder['since']}"


def _refusal(folder: Path, holder: dict[str, Any] | None) -> UserError:
    who = "" if holder is None else f" ({_name(holder)})"
    return UserError(
        f"another process is running in {str(folder)!r}{who}; wait for it, stop it, or give another --run_dir. "
        f"(If it surely has ended, on a network file system without locks, delete {HOLDER} there.)"
    )

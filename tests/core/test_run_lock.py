"""The run lock: a second process is refused with the holder's name, and a dead holder does not block."""

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from vision_mtl.core.errors import UserError
from vision_mtl.core.run_lock import HOLDER, RunLock

HOLD = (
    "import sys; from pathlib import Path; from vision_mtl.core.run_lock import RunLock; "
    "lock = RunLock(Path(sys.argv[1]))"
)


def holder(folder: Path, **changes: object) -> None:
    values = {"host": platform.node(), "process": 2**22 + 1, "since": "2026-01-01 00:00:00", **changes}
    (folder / HOLDER).write_text(json.dumps(values))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a file system without locks, like some network file systems."""

    def acquire(self: FileLock, *_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", acquire)


@pytest.mark.slow
def test_the_holder_is_named_and_its_end_releases_the_lock(tmp_path: Path) -> None:
    wait = f"{HOLD}; print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", wait, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        named = rf"another process is running in .*\(process {first.pid} on {platform.node()}, started \d"
        with pytest.raises(UserError, match=named):
            RunLock(tmp_path)
        first.kill()
        first.wait()
        lock = RunLock(tmp_path)
        assert f"process {first.pid} on" in lock.stale and "ended without closing its run" in lock.stale
        lock.release()
    again = RunLock(tmp_path)
    assert again.stale is None
    again.release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_dead_holder_on_this_machine_is_ignored(tmp_path: Path) -> None:
    holder(tmp_path)  # beyond the largest process id
    lock = RunLock(tmp_path)
    assert lock.stale is not None and json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("changes", [{"process": os.getpid()}, {"host": "elsewhere"}])
def test_without_locks_live_and_unknown_holders_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    holder(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"process \d+ on .*delete {HOLDER}"):
        RunLock(tmp_path)


def test_a_read_only_folder_is_not_a_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(self: FileLock, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(UserError, match="the file system is read-only"):
        RunLock(tmp_path)


def test_a_damaged_holder_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text("[1")
    assert RunLock(tmp_path).stale is None

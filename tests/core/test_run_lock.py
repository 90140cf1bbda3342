"""One process at a time: the second is told who is first, and the dead block nobody."""

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
    """A file system that has none, as some network ones."""

    def acquire(self: FileLock, *_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", acquire)


@pytest.mark.slow
def test_another_process_is_named_and_its_end_frees_the_folder(tmp_path: Path) -> None:
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
        claim = RunLock(tmp_path)
        assert f"process {first.pid} on" in claim.stale and "ended without closing its run" in claim.stale
        claim.release()
    again = RunLock(tmp_path)
    assert again.stale is None
    again.release()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_dead_of_this_machine_are_passed_over(tmp_path: Path) -> None:
    holder(tmp_path)  # beyond the largest process id
    claim = RunLock(tmp_path)
    assert claim.stale is not None and json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("changes", [{"process": os.getpid()}, {"host": "elsewhere"}])
def test_without_locks_the_living_and_the_unknown_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    holder(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"process \d+ on .*delete {HOLDER}"):
        RunLock(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(self: FileLock, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(UserError, match="the file system is read-only"):
        RunLock(tmp_path)


def test_a_holder_that_cannot_be_read_is_nobody(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text("[1")
    assert RunLock(tmp_path).stale is None

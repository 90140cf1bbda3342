"""Files are whole or absent, and a full disk is named as such."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes, atomic_write_json, disk_error, remove_leftovers


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ü file.bin"
    for content in (b"one", b"two"):
        atomic_write_bytes(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failure_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, stage, fail)
    with pytest.raises(UserError, match=r"disk is full: 3 bytes were to be written to '.*file'"):
        atomic_write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken"):
        atomic_write_bytes(tmp_path / "taken" / "file", b"x")


def test_json_is_json(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"ä": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"ä": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["ä"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"the disk is full: 1,234 bytes were to be written to '.*a'. Free space"),
        (errno.EDQUOT, "your quota is used up; 1,234 bytes"),
        (errno.EFBIG, r"may not grow so large here \(ulimit -f\)"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EMFILE, r"too many open files: .*ulimit -n 4096.*--data\.num_workers"),
    ],
)
def test_what_the_machine_refuses_is_said_with_what_to_do(number: int, said: str) -> None:
    assert re.search(said, str(disk_error(Path("a"), 1234, OSError(number, os.strerror(number)))))


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "kept", b"x")
    (tmp_path / ".kept.1a2b.tmp").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_other_faults_keep_their_reason(tmp_path: Path) -> None:
    assert "Permission denied" in str(disk_error(tmp_path, 1, OSError(errno.EACCES, "Permission denied")))

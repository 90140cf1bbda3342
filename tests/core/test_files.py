"""Atomic writes, and the errors for a full disk and other limits."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes, atomic_write_json, disk_error, remove_leftovers


def test_a_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match=r"disk is full: cannot write 3 bytes to '.*file'"):
        atomic_write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
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
    ("number", "message"),
    [
        (errno.ENOSPC, r"the disk is full: cannot write 1,234 bytes to '.*a'. Free space"),
        (errno.EDQUOT, "the disk quota is used up: cannot write 1,234 bytes"),
        (errno.EFBIG, r"the file size limit \(ulimit -f\) is reached"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EMFILE, r"too many open files: .*ulimit -n 4096.*--data\.num_workers"),
    ],
)
def test_errors_of_the_machine_are_explained(number: int, message: str) -> None:
    assert re.search(message, str(disk_error(Path("a"), 1234, OSError(number, os.strerror(number)))))


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "kept", b"x")
    (tmp_path / ".kept.1a2b.tmp").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_other_errors_keep_their_reason(tmp_path: Path) -> None:
    assert "Permission denied" in str(disk_error(tmp_path, 1, OSError(errno.EACCES, "Permission denied")))

"""A machine that gives no more: one clear error, nothing lost, and the same command goes on when there is room."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # runs in processes without memory or disk

ROOT = Path(__file__).parents[2]
LIMITED = """
import json, os, resource, sys
from vision_mtl.cli.command import main
words, kind, room = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
import vision_mtl.stages.pretrain, vision_mtl.recipes.result_text, vision_mtl.models.decoders.stages
import vision_mtl.data.sources.images, torch._dynamo
if kind == "AS":
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
else:
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, used + room))
sys.exit(main(words))
"""


def limited(words: list[object], kind: str, room: int) -> subprocess.CompletedProcess[str]:
    """The command in a process that may take `room` more bytes of memory, or open so many more files."""
    command = [sys.executable, "-c", LIMITED, json.dumps([str(word) for word in words]), kind, str(room)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def words_of(folder: Path, images: Path, root: Path, **options: object) -> list[object]:
    given = {"stage": "pretrain", "run_dir": folder, "data.root": root, "device": "cpu", "track.tensorboard": "false"}
    given |= {"data.unlabelled": f"images/{images}", "backbone.name": "resnet10t", "optim.steps": 1}
    given |= {"runtime.num_threads": 1, "data.num_workers": 1, "runtime.precision": "fp32", **options}
    return [word for key, value in given.items() for word in (f"--{key}", value)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_at_any_moment_loses_nothing() -> None:
    command = [sys.executable, "benchmarks/faults.py", "--kills", "0", "--full", "6", "--stages", "finetune"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout)["full"]["finetune"]
    assert row["moments"] == row["identical"] == 6 and row["errors"] >= 4


def test_too_many_open_files_is_one_clear_error(image_folder: Path, tmp_path: Path) -> None:
    done = limited(words_of(tmp_path / "run", image_folder, tmp_path / "root", image_size=32), "NOFILE", 2)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "too many open files" in done.stderr and "ulimit -n" in done.stderr


def test_too_little_memory_names_what_fits_and_that_fits(image_folder: Path, tmp_path: Path, root: Path) -> None:
    options = {"image_size": 96, "optim.batch_size": 512, "pretexts.grid_mask.weight": 1}
    room = 1_200_000_000
    done = limited(words_of(tmp_path / "run", image_folder, root, **options), "AS", room)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "out of memory at step 0, which is saved. Measured just now:" in done.stderr
    named = re.search(r"--optim\.accumulate (\d+)", done.stderr)
    if named is None:  # what Python itself has taken by then differs between machines, so none may fit
        assert "--optim.batch_size" in done.stderr or "--image_size" in done.stderr, done.stderr[-2000:]
        return
    parts = int(named.group(1))
    done = limited(words_of(tmp_path / "new", image_folder, root, **options, **{"optim.accumulate": parts}), "AS", room)
    assert "out of memory at step" not in done.stderr


def test_a_disk_that_refuses_even_the_result_hides_no_error(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from vision_mtl.core.run import Run

    original = Run.log
    monkeypatch.setattr(
        Run, "log", lambda run, record: (original(run, record), monkeypatch.setattr(os, "fsync", refuse))
    )
    assert train(tmp_path / "run") == 2
    text = capsys.readouterr()
    assert "the disk is full" in text.err and "result.json could not be written" in text.err
    monkeypatch.undo()
    assert train(tmp_path / "run") == 0


def test_a_figure_that_finds_no_room_is_the_users_to_mend(
    train, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.figure import Figure

    def refuse(self: Figure, path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Figure, "savefig", refuse)
    assert train(tmp_path / "run") == 2
    assert re.search(r"the disk is full: '.*figures.*png' cannot be written", capsys.readouterr().err)
    assert result(tmp_path / "run")["status"] == "failed"
    monkeypatch.undo()
    assert train(tmp_path / "run") == 0 and result(tmp_path / "run")["repeated_steps"] == 0

"""Full disk, memory or file table: one clear error, nothing lost, and the same command resumes later."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vision_mtl.models.shared import SharedModel

pytestmark = pytest.mark.slow  # runs in processes without files or disk

ROOT = Path(__file__).parents[2]
FEW_FILES = """
import json, os, resource, sys
from vision_mtl.cli.command import main
import vision_mtl.stages.pretrain, vision_mtl.recipes.result_text, vision_mtl.models.decoders.stages
import vision_mtl.data.sources.images, torch._dynamo
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, used + 2))
sys.exit(main(json.loads(sys.argv[1])))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_at_any_moment_loses_nothing() -> None:
    command = [sys.executable, "benchmarks/faults.py", "--kills", "0", "--full", "6", "--stages", "finetune"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout)["full"]["finetune"]
    assert row["moments"] == row["identical"] == 6 and row["errors"] >= 4


def test_too_many_open_files_is_one_clear_error(image_folder: Path, tmp_path: Path) -> None:
    options = {"stage": "pretrain", "run_dir": tmp_path / "run", "data.root": tmp_path / "root", "device": "cpu"}
    options |= {"data.unlabelled": f"images/{image_folder}", "backbone.name": "resnet10t", "image_size": 32}
    options |= {"optim.steps": 1, "runtime.num_threads": 1, "data.num_workers": 1, "track.tensorboard": "false"}
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    command = [sys.executable, "-c", FEW_FILES, json.dumps(words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "too many open files" in done.stderr and "ulimit -n" in done.stderr


def test_too_little_memory_names_options_that_fit(
    train, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's own allocator refuses, for more than six views at a time.

    A limit of the process's memory would be nearer to life, but libraries that do not check for it then crash.
    """
    original = SharedModel.forward

    def forward(self: SharedModel, images: torch.Tensor, *others: object) -> object:
        if self.training and len(images) > 6:
            torch.empty(2**60, dtype=torch.uint8)
        return original(self, images, *others)

    monkeypatch.setattr(SharedModel, "forward", forward)
    options = ("--optim.batch_size", "12")
    assert train(tmp_path / "run", *options) == 2
    text = capsys.readouterr().err
    assert "out of memory at step 0, which is saved. Measured just now: 3 images at a time fit." in text
    assert "--optim.accumulate 4" in text and result(tmp_path / "run")["status"] == "failed"
    assert train(tmp_path / "new", *options, "--optim.accumulate", "4") == 0


def test_an_error_is_shown_even_if_the_result_cannot_be_written(
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


def test_a_figure_that_does_not_fit_on_the_disk_is_a_clear_error(
    train, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.figure import Figure

    def refuse(self: Figure, path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Figure, "savefig", refuse)
    assert train(tmp_path / "run") == 2
    assert re.search(r"the disk is full: cannot write '.*figures.*png'", capsys.readouterr().err)
    assert result(tmp_path / "run")["status"] == "failed"
    monkeypatch.undo()
    assert train(tmp_path / "run") == 0 and result(tmp_path / "run")["repeated_steps"] == 0

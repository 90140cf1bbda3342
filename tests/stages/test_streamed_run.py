"""A streamed run is the stored one, resumes exactly, says that it streams, and loses nothing to a file that breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vision_mtl.stages.command import main


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 JPEG files of two classes, more than twice as large as they are looked at."""
    folder, random = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(0)
    for number in range(40):
        file = folder / "ab"[number % 2] / f"{number:02d}.jpg"
        file.parent.mkdir(exist_ok=True)
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(file), cv2.resize(coarse, (72, 72), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def run(jpegs: Path, tmp_path: Path) -> Callable[..., int]:
    def train(name: str, stage: str, stream: str, workers: int, **more: object) -> int:
        given = {"stage": stage, "run_dir": tmp_path / name, "data.root": tmp_path / "root", "data.stream": stream}
        given |= {"tasks.kind.source": f"folder/{jpegs}", "image_size": 32, "device": "cpu", "data.val_ratio": 0.25}
        given |= {"backbone.name": "test_resnet", "optim.steps": 6, "optim.batch_size": 8}
        given |= {"track.tensorboard": "false", "track.log_every_steps": 1, "track.num_pictures": 0}
        given |= {"runtime.precision": "fp32", "runtime.num_threads": 1, "data.num_workers": workers, **more}
        return main([str(word) for key, value in given.items() for word in (f"--{key}", value)])

    return train


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl` without what a clock said."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in found]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_streamed_run_is_the_stored_one_and_resumes_exactly(
    stage: str, run, interrupt_at, jpegs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    assert run("stored", stage, "false", 1) == 0
    capsys.readouterr()
    interrupt_at(3)
    assert run("streamed", stage, "true", 3) == 130
    assert f"streamed, decoded while they are looked at: folder/{jpegs}" in capsys.readouterr().err
    assert threading.active_count() <= before  # Ctrl-C leaves none behind
    interrupt_at(None)
    assert run("streamed", stage, "true", 3) == 0
    assert lines(tmp_path / "streamed") == lines(tmp_path / "stored")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("stored", "streamed")]
    stored, streamed = (result["data"] for result in results)
    assert results[0]["metrics"] == results[1]["metrics"]
    assert (streamed["streamed"], streamed["store_bytes"], stored["streamed"]) == ([f"folder/{jpegs}"], 0, [])
    assert threading.active_count() <= before


def test_a_file_that_breaks_in_training_is_named_and_the_steps_before_are_kept(
    run, jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vision_mtl.training.loop import Trainer

    held_out = {"data.val_ratio": 0.1, "data.test_ratio": 0.1, "track.num_probes": 0}
    assert run("whole", "pretrain", "true", 2, **held_out) == 0
    original, step = Trainer._step, 2  # 16 images before it, of some 32
    kept: dict[Path, bytes] = {}

    def broken(self: Trainer) -> object:
        if self.progress.step == 0 and not kept:  # after the look at all files, before any is read ahead
            row = int(self.feed.batches.at(step)[0][0])
            seen = {int(i) for earlier in range(step) for i in self.feed.batches.at(earlier)[0]}
            assert row not in seen
            kept[self.feed.pool.paths[row]] = self.feed.pool.paths[row].read_bytes()
            self.feed.pool.paths[row].write_bytes(kept[self.feed.pool.paths[row]][:300])
        return original(self)

    monkeypatch.setattr(Trainer, "_step", broken)
    capsys.readouterr()
    code = run("run", "pretrain", "true", 2, **held_out)
    ((file, content),) = kept.items()
    file.write_bytes(content)
    assert code == 2 and f"{file.relative_to(jpegs).as_posix()}' of folder/" in (said := capsys.readouterr().err)
    assert "cannot be decoded" in said and (tmp_path / "run" / "checkpoints" / f"step-{step:08d}.safetensors").is_file()
    assert run("run", "pretrain", "true", 2, **held_out) == 0  # mended
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")

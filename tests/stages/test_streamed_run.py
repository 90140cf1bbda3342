"""A streamed run is the stored one, resumes exactly, says that it streams, and loses nothing to a file that breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vision_mtl.cli.command import main

pytestmark = pytest.mark.slow  # interrupted and resumed runs


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
    """`metrics.jsonl` without what a clock said, and without the lines that say where the run was resumed."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in found if line["kind"] != "resume"]
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


HELD_OUT = {"data.val_ratio": 0.1, "data.test_ratio": 0.1, "track.num_probes": 0}  # some 32 of 40 are trained on
BROKEN_STEP = 2


@pytest.fixture
def broken_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """While training begins, after the look at all files, one that step 2 is the first to see breaks; in the end it is
    whole again."""
    from vision_mtl.training.loop import Trainer

    original, files, contents = Trainer._take_step, [], []

    def step(self: Trainer) -> object:
        if not files:
            row = int(self.feed.batches.at(BROKEN_STEP)[0][0])
            assert row not in {int(i) for earlier in range(BROKEN_STEP) for i in self.feed.batches.at(earlier)[0]}
            files.append(self.feed.pool.paths[row])
            contents.append(files[0].read_bytes())
            files[0].write_bytes(contents[0][:300])
        return original(self)

    monkeypatch.setattr(Trainer, "_take_step", step)
    yield files
    files[0].write_bytes(contents[0])


def test_a_file_that_breaks_in_training_is_named_and_the_steps_before_are_kept(
    run, broken_file: list[Path], jpegs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", "pretrain", "true", 2, **HELD_OUT) == 2
    name, said = broken_file[0].relative_to(jpegs).as_posix(), capsys.readouterr().err
    assert f"'{name}' of folder/{jpegs} cannot be decoded: " in said and "run the same command again" in said
    assert (tmp_path / "run" / "checkpoints" / f"step-{BROKEN_STEP:08d}.safetensors").is_file()
    assert [line["step"] for line in lines(tmp_path / "run") if line["kind"] == "train"] == [1, 2]


def test_or_it_is_shown_as_grey_where_such_files_are_left_out(
    run, broken_file: list[Path], jpegs: Path, tmp_path: Path
) -> None:
    assert run("run", "pretrain", "true", 2, **HELD_OUT, **{"data.skip_unreadable": "true"}) == 0
    (warning,) = (w for w in json.loads((tmp_path / "run" / "result.json").read_text())["warnings"] if "grey" in w)
    assert "1 streamed images could not be decoded" in warning
    assert broken_file[0].relative_to(jpegs).as_posix() in warning

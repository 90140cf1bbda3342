"""An interrupted run resumes, ends with the same result, and logs that it was resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors
from vision_mtl.training.step_guard import PendingStep, StepGuard

pytestmark = pytest.mark.slow  # interrupted and resumed runs

ROOT = Path(__file__).parents[2]
CLOCK = ("seconds", "images_per_second")


def lines(folder: Path) -> list[dict]:
    """Return `metrics.jsonl` without times, and without the lines about resuming."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = [record for record in records if record["kind"] != "resume"]
    return [{key: value for key, value in record.items() if key not in CLOCK} for record in records]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    last = checkpoints(folder / "checkpoints")[-1]
    parts = ("model", "average", "optimiser", "balancing")
    return {f"{part}.{name}": value for part in parts for name, value in read_tensors(last, part).items()}


def same(one: Path, other: Path) -> bool:
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch):
    """Make the process fail in the middle of a step, like a hardware fault; None: stop failing."""
    original = StepGuard._read

    def arm(step: int | None) -> None:
        def failing(self: StepGuard, pending: list[PendingStep]) -> object:
            if pending[0].step == step:
                raise SystemExit(9)
            return original(self, pending)

        monkeypatch.setattr(StepGuard, "_read", failing)

    return arm


def test_a_run_killed_at_random_steps_ends_with_the_same_result() -> None:
    command = [sys.executable, "benchmarks/faults.py", "--kills", "12", "--seed", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)["stages"].values()
    assert len(rows) == 3 and all(row["identical"] == row["runs"] >= 1 for row in rows)
    assert sum(row["kills"] for row in rows) >= 12 and sum(row["late"] for row in rows) >= 1
    assert sum(row["bytes"] + row["flushed"] + row["rename"] + row["renamed"] for row in rows) >= 3


def test_averages_continue_over_an_interruption(supervise, table_tasks, interrupt_at, tmp_path: Path, result) -> None:
    """Stop between two lines, two cosines and two balancing windows, with averaged weights and loader threads."""
    words = [*table_tasks("letter", "size"), "--optim.steps", 9, "--track.log_every_steps", 4, "--optim.ema_decay", 0.8]
    words += ["--balance.name", "dwa", "--balance.kwargs.window", 4, "--balance.conflicts_every_steps", 5]
    assert supervise("finetune", tmp_path / "whole", *words) == 0
    for number, step in ((signal.SIGINT, 3), (signal.SIGTERM, 6)):
        interrupt_at(step, number)
        assert supervise("finetune", tmp_path / "parts", *words) == 130
        assert read_state(checkpoints(tmp_path / "parts" / "checkpoints")[-1])["step"] == step
    interrupt_at(None)
    assert supervise("finetune", tmp_path / "parts", *words) == 0
    assert same(tmp_path / "whole", tmp_path / "parts") and lines(tmp_path / "whole") == lines(tmp_path / "parts")
    found = result(tmp_path / "parts")
    assert found["metrics"] == result(tmp_path / "whole")["metrics"]
    assert (found["resumes"], found["repeated_steps"]) == (2, 0)


def test_a_single_task_network_resumes_after_a_stop_or_a_kill(
    supervise, table_tasks, interrupt_at, fail_at, tmp_path: Path, result
) -> None:
    words = [*table_tasks("letter"), "--finetune.single_task", "same_images", "--optim.steps", 6]
    words += ["--track.checkpoint_every_seconds", 0, "--track.log_every_steps", 1]  # logged steps are counted
    assert supervise("finetune", tmp_path / "whole", *words) == 0
    assert supervise("finetune", tmp_path / "parts", *words, "--optim.steps", 5) == 0  # its network is for 5 steps
    interrupt_at(6)  # of the shared network
    assert supervise("finetune", tmp_path / "parts", *words) == 130
    interrupt_at(2)  # of the network alone
    assert supervise("finetune", tmp_path / "parts", *words) == 130
    work = tmp_path / "parts" / "single" / "letter" / "6-steps"
    assert read_state(checkpoints(work / "checkpoints")[-1])["step"] == 2
    interrupt_at(None)
    fail_at(4)
    with pytest.raises(SystemExit):
        supervise("finetune", tmp_path / "parts", *words)
    fail_at(None)
    checkpoints(work / "checkpoints")[-1].unlink()  # as if the last one had not been written yet
    assert supervise("finetune", tmp_path / "parts", *words) == 0
    one, other = (read_tensors(tmp_path / run / "single" / "letter.safetensors", "model") for run in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    found = result(tmp_path / "parts")
    # the shared network of `parts` was extended, so its learning rates differ
    assert found["metrics"]["single"] == result(tmp_path / "whole")["metrics"]["single"]
    assert found["repeated_steps"] == 1
    assert not work.exists()


def test_repeated_steps_are_counted_and_resuming_differs_from_restarting(
    train_unscored, fail_at, result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = ["--track.log_every_steps", "1"]  # only logged steps are counted

    def fails(step: int, *words: str) -> str:
        fail_at(step)
        with pytest.raises(SystemExit):
            train_unscored(tmp_path / "run", *logged, *words)
        return capsys.readouterr().err

    every_step, never = ["--track.checkpoint_every_seconds", "0"], ["--track.checkpoint_every_seconds", "1e9"]
    assert "resumed this run" not in fails(2, *never)
    assert "restarted, not resumed: there is no checkpoint yet; 2 steps are repeated" in fails(1, *never)
    (tmp_path / "run" / "config.yaml").write_text(
        (tmp_path / "run" / "config.yaml").read_text().replace("1000000000.0", "0.0")
    )
    fails(3, *every_step)
    fail_at(None)
    assert train_unscored(tmp_path / "run", *logged, *every_step) == 0
    path = tmp_path / "run" / "checkpoints" / "step-00000003.safetensors"
    assert f"resumed this run from {path}, step 3 (0 steps are repeated)" in capsys.readouterr().err
    found = result(tmp_path / "run")
    assert (found["resumes"], found["repeated_steps"]) == (3, 3)  # 2 of the first life, 1 of the second


def test_a_damaged_checkpoint_is_named_and_the_previous_one_gives_the_same_result(
    train_unscored, interrupt_at, result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--optim.ema_decay", "0.5", "--track.checkpoint_every_seconds", "0", "--track.log_every_steps", "1"]
    assert train_unscored(tmp_path / "whole", *words) == 0
    interrupt_at(3)
    assert train_unscored(tmp_path / "run", *words) == 130
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 4
    newest.write_bytes(data)
    interrupt_at(None)
    assert train_unscored(tmp_path / "run", *words) == 0
    assert same(tmp_path / "whole", tmp_path / "run") and lines(tmp_path / "whole") == lines(tmp_path / "run")
    found = result(tmp_path / "run")
    assert any("step-00000003.safetensors is skipped" in warning for warning in found["warnings"])
    assert found["repeated_steps"] == 1 and "step 2 (1 steps are repeated)" in capsys.readouterr().err


def test_resumed_and_initialised_are_never_confused(
    train_unscored, interrupt_at, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_unscored(tmp_path / "first") == 0
    start = ["--init_from", str(tmp_path / "first")]
    interrupt_at(2)
    capsys.readouterr()
    assert train_unscored(tmp_path / "run", *start) == 130
    text = capsys.readouterr().err
    last = tmp_path / "first" / "checkpoints" / "step-00000004.safetensors"
    assert f"initialised from {last}: a new run, at step 0" in text and "resumed this run" not in text
    interrupt_at(None)
    assert train_unscored(tmp_path / "run", *start) == 0
    text = capsys.readouterr().err
    assert "initialised from" not in text
    assert f"step 2 (0 steps are repeated); --init_from {tmp_path / 'first'} was used at step 0 only" in text


def test_a_signal_to_save_writes_a_checkpoint_and_training_continues(
    train_unscored, interrupt_at, result, tmp_path: Path
) -> None:
    interrupt_at(2, signal.SIGUSR1)
    assert train_unscored(tmp_path / "run", "--track.checkpoint_every_seconds", "1e9") == 0
    steps = [read_state(path)["step"] for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert steps == [2, 4] and result(tmp_path / "run")["status"] == "completed"


def test_a_signal_to_stop_at_the_last_step_is_not_lost(train_unscored, interrupt_at, result, tmp_path: Path) -> None:
    interrupt_at(4)
    assert train_unscored(tmp_path / "run") == 130
    interrupt_at(None)
    assert train_unscored(tmp_path / "run") == 0 and result(tmp_path / "run")["images_seen"] == 32


def test_a_killed_extension_is_not_taken_for_the_shorter_run(train_unscored, fail_at, result, tmp_path: Path) -> None:
    assert train_unscored(tmp_path / "run", "--optim.steps", "2") == 0
    fail_at(3)
    with pytest.raises(SystemExit):
        train_unscored(tmp_path / "run", "--optim.steps", "4")
    fail_at(None)
    assert train_unscored(tmp_path / "run", "--optim.steps", "4") == 0
    assert result(tmp_path / "run")["images_seen"] == 32


def test_the_training_clock_continues(
    train_unscored, interrupt_at, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second by this clock, so six steps fill the six seconds, wherever the run was interrupted."""
    ticks = iter(range(1000))
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("vision_mtl.training.loop.time", clock)
    words = ["--optim.max_seconds", "6", "--optim.steps", "null"]
    assert train_unscored(tmp_path / "whole", *words) == 0
    interrupt_at(4)
    assert train_unscored(tmp_path / "run", *words) == 130
    interrupt_at(None)
    assert train_unscored(tmp_path / "run", *words) == 0
    assert result(tmp_path / "run")["seconds"] == 6 and result(tmp_path / "run")["images_seen"] == 48
    assert same(tmp_path / "whole", tmp_path / "run") and lines(tmp_path / "whole") == lines(tmp_path / "run")

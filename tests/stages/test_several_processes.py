"""Several runs at once, and one run in several processes: equal losses, and a clean stop if a process dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vision_mtl.cli.command import main
from vision_mtl.training.checkpoint import check, checkpoints, read_state, read_tensors

pytestmark = pytest.mark.slow  # several processes

ROOT = Path(__file__).parents[2]
STEPS = 20
CLOCK = ("seconds", "images_per_second")
# several runs one after the other, because the start takes longest; a run may get, in its second process, a signal in
# the 14th step or a NaN gradient in the 4th
PROGRAM = """
import json, os, signal, sys
from vision_mtl.cli.command import main
from vision_mtl.training.loop import Trainer

step, backward = Trainer._take_step, Trainer._backward

def held(tensors):
    return sum(t.to_local().numel() if hasattr(t, "to_local") else t.numel() for t in tensors)

def signalled(self):
    if self.progress.step != 13:
        return step(self)
    weights = list(self.model.backbone.parameters())
    moments = [self.optimiser.state[p]["exp_avg"] for p in weights if p in self.optimiser.state]
    shares = [held(some) / sum(t.numel() for t in some) for some in (weights, moments)]
    # in one piece: two processes write to the same place
    sys.stderr.write(f"rank {os.environ['RANK']} holds {' '.join(f'{share:.2f}' for share in shares)}" + chr(10))
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), number)
    return step(self)

def broken(self, loss, share):
    backward(self, loss, share)
    if os.environ["RANK"] == "1" and self.progress.step == 3:
        next(p for p in self.model.heads.parameters() if p.grad is not None).grad.fill_(float("nan"))

for words, happens in json.loads(sys.argv[1]):
    number = getattr(signal, happens, None)
    Trainer._take_step = step if number is None else signalled
    Trainer._backward = broken if happens == "nan" else backward
    code = main(words)
    if code not in (0, 130):
        sys.exit(code)
"""
# waits, when everything is imported, until all the others are as far: they then meet at the store
AT_ONCE = """
import sys, time
from pathlib import Path
from vision_mtl.cli.command import main
from vision_mtl.config.stage import STAGES
STAGES.get("pretrain")
place, own, count, words = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
(place / own).touch()
while len(list(place.iterdir())) < count:
    time.sleep(0.005)
sys.exit(main(words))
"""


def words_of(folder: Path, root: Path, **options: object) -> list[str]:
    given = {"stage": "pretrain", "run_dir": folder, "data.root": root, "image_size": 32, "optim.batch_size": 8}
    given |= {"backbone.name": "test_resnet", "device": "cpu", "track.tensorboard": "false", "optim.steps": 2}
    given |= {"track.num_pictures": 0}
    given |= {"runtime.precision": "fp32", **options}
    return [str(word) for key, value in given.items() for word in (f"--{key}", value)]


def launch(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True, "timeout": 600}
    return subprocess.run([*start, *words], cwd=ROOT, **options)


def lines(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """Return `metrics.jsonl` without times."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records if record["kind"] == kind]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(run / "checkpoints")[-1], "model")


def optimiser(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(run / "checkpoints")[-1], "optimiser")


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_four_runs_at_once_on_an_empty_store_build_it_once(image_folder: Path, tmp_path: Path) -> None:
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    unlabelled = {"data.unlabelled": f"images/{image_folder}"}
    (tmp_path / "ready").mkdir()
    runs = []
    for seed in range(4):
        words = words_of(tmp_path / f"run-{seed}", tmp_path / "root", seed=seed, **unlabelled)
        start = [sys.executable, "-c", AT_ONCE, str(tmp_path / "ready"), str(seed), "4"]
        runs.append(subprocess.Popen([*start, *words], **options))
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert sum("decoding images/" in text for text in said) == 1
    losses = [lines(tmp_path / f"run-{seed}")[-1]["loss"] for seed in range(4)]
    assert len(set(losses)) == 4  # each its own seed, on the one store
    assert len([entry for entry in (tmp_path / "root" / "store").iterdir() if entry.is_dir()]) == 1


@pytest.fixture(scope="module")
def commands(
    image_folder: Path, table_tasks: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], list[str]]:
    """The words of a run of a stage under a name: a transformer without dropout or batch statistics, every step logged.

    Half of the images carry no label of one of the tasks, so the two processes have unequally many in most steps.
    """
    folder = tmp_path_factory.mktemp("processes")

    def words(stage: str, name: str) -> list[str]:
        options: dict[str, object] = {"backbone.name": "test_vit", "backbone.kwargs.patch_size": 8}
        options |= {"optim.steps": STEPS, "track.log_every_steps": 1, "stage": stage, "optim.learning_rate": 0.03}
        options |= {"data.unlabelled": f"images/{image_folder}"} if stage == "pretrain" else {"data.val_ratio": 0.25}
        options |= {"pretexts.grid_mask.instances_per_image": 2} if stage == "pretrain" else {"optim.layer_decay": 0.7}
        # views are compared within a process, so contrast is another loss in two of them
        options |= {"pretexts.contrast.weight": 0, "pretexts.grid_mask.fill": "learned"} if stage == "pretrain" else {}
        options |= {"runtime.shard": "true"} if name.endswith("cut") else {}
        found = words_of(folder / name, folder / "root", **options)
        if stage == "joint":
            consistency = {"consistency_weight": 1, "consistency_threshold": 0.51, "label_fraction": 0.5}
            found += [word for key, value in consistency.items() for word in (f"--joint.{key}", str(value))]
            return found + table_tasks("letter", "shade")
        return found + (table_tasks("letter", "shade", "size") if stage == "finetune" else [])

    words.folder = folder  # type: ignore[attr-defined]
    return words


@pytest.fixture(scope="module")
def launched(commands: Any) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run each stage in one process, in two, and in two with a sharded backbone.

    Of the sharded runs, one is stopped in its 14th step and resumes, and one has a NaN gradient in its 4th step. In the
    last run, the second process dies in the 14th step.
    """
    folder = commands.folder
    program = folder / "program.py"
    program.write_text(PROGRAM)
    for stage in ("pretrain", "finetune", "joint"):
        assert main(commands(stage, f"{stage}-one")) == 0
    dying = [*commands("pretrain", "dying"), "--track.checkpoint_every_seconds", "0"]
    runs = [(commands(stage, f"{stage}-{how}"), "") for stage in ("pretrain", "finetune") for how in ("two", "cut")]
    runs.append((commands("joint", "joint-two"), ""))
    stopped, skipping = commands("pretrain", "stopped-cut"), commands("pretrain", "nan-cut")
    skipping += ["--optim.non_finite", "skip", "--optim.steps", "5", "--track.num_probes", "0"]
    runs += [(stopped, "SIGTERM"), (stopped, ""), (skipping, "nan")]
    return folder, launch(program, json.dumps([*runs, (dying, "SIGKILL")]))


@pytest.mark.parametrize(
    ("stage", "how"), [(s, h) for s in ("pretrain", "finetune") for h in ("two", "cut")] + [("joint", "two")]
)
def test_two_processes_take_the_steps_of_one(stage: str, how: str, launched: Any) -> None:
    folder, done = launched
    one, two = lines(folder / f"{stage}-one"), lines(folder / f"{stage}-{how}")
    assert len(one) == len(two) == STEPS, done.stderr[-3000:]
    assert [line.keys() for line in one] == [line.keys() for line in two]
    parts = sum(key.startswith("loss.") for line in one for key in line)
    assert parts > 1.5 * STEPS  # of several pretexts or tasks, not each in every step
    for here, there in zip(one, two, strict=True):
        assert there == pytest.approx(here, abs=1e-5)
    found = json.loads((folder / f"{stage}-{how}" / "result.json").read_text())
    assert found["status"] == "completed" and found["images_seen"] == STEPS * 8
    assert_close(weights(folder / f"{stage}-{how}"), weights(folder / f"{stage}-one"))
    assert_close(optimiser(folder / f"{stage}-{how}"), optimiser(folder / f"{stage}-one"))


def test_a_sharded_run_that_is_stopped_resumes_with_the_same_bits_and_in_one_process(
    launched: Any, commands: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, done = launched
    stopped, whole = folder / "stopped-cut", folder / "pretrain-cut"
    found = json.loads((stopped / "result.json").read_text())
    assert found["status"] == "completed" and found["resumes"] == 1, done.stderr[-3000:]
    assert [read_state(path)["step"] for path in checkpoints(stopped / "checkpoints")] == [14, STEPS]
    assert lines(stopped) == lines(whole)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(stopped).items())

    shutil.copytree(stopped, folder / "alone-cut")
    checkpoints(folder / "alone-cut" / "checkpoints")[-1].unlink()
    (folder / "alone-cut" / "result.json").unlink()
    assert main(commands("pretrain", "alone-cut")) == 0
    assert "runtime.shard has no effect in one process" in capsys.readouterr().err
    assert_close(weights(folder / "alone-cut"), weights(whole))


def test_each_process_has_half_of_a_sharded_backbone_and_of_its_optimiser_state(launched: Any) -> None:
    """Without this, nothing would show that anything is sharded. One-row tensors are in one process: not quite half."""
    _, done = launched
    found = re.findall(r"rank (\d) holds (\S+) (\S+)", done.stderr)
    halves = {rank for rank, *shares in found if all(0.45 < float(share) < 0.55 for share in shares)}
    wholes = {rank for rank, *shares in found if shares == ["1.00", "1.00"]}
    assert halves == wholes == {"0", "1"}, found  # the run that dies is not cut


def test_a_sharded_run_skips_a_step_that_is_not_finite_in_one_process(launched: Any) -> None:
    folder, done = launched
    found = json.loads((folder / "nan-cut" / "result.json").read_text())
    assert found["status"] == "completed", done.stderr[-3000:]
    assert any("step 3 was skipped" in warning and "no single image" in warning for warning in found["warnings"])
    assert all(bool(value.isfinite().all()) for value in weights(folder / "nan-cut").values())


def test_a_process_that_dies_stops_the_run_which_then_resumes_with_the_same_result(
    launched: Any, commands: Any
) -> None:
    folder, done = launched
    assert done.returncode != 0
    ended_by_launcher = "exitcode  : -15" in done.stderr  # torchrun may end process 0 before it has seen the loss
    assert ended_by_launcher or "error: another process of this run has ended" in done.stderr, done.stderr[-3000:]
    last = checkpoints(folder / "dying" / "checkpoints")[-1]
    check(last)
    assert read_state(last)["step"] == 13
    words = [*commands("pretrain", "dying"), "--track.checkpoint_every_seconds", "0"]
    done = launch(ROOT / "train.py", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 13 (" in done.stderr and json.loads((folder / "dying" / "result.json").read_text())["resumes"] == 1
    assert lines(folder / "dying") == lines(folder / "pretrain-two")
    expected = weights(folder / "pretrain-two")
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder / "dying").items())

"""`joint`: tasks and repair in the same steps, each with its share of the images, both scored."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from vision_mtl.config.resolve import resolve
from vision_mtl.core.errors import UserError
from vision_mtl.recipes.joint_training import split_batch, weight_schedule
from vision_mtl.recipes.study_options import composer
from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors
from vision_mtl.training.options import Optim


@pytest.fixture(scope="module")
def words(table_tasks, image_folder: Path) -> list:
    found = [*table_tasks("letter", "seen"), "--data.unlabelled", f"images/{image_folder}", "--joint.schedule", "fall"]
    return [*found, "--track.log_every_steps", 1, "--joint.repair_ratio", 0.75, "--optim.steps", 6]


@pytest.fixture(scope="module")
def finished(supervise, words: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint") / "run"
    assert supervise("joint", folder, *words) == 0
    return folder


def test_tasks_and_repairs_are_scored(finished: Path, result, label_table: Path, image_folder: Path) -> None:
    found = result(finished)
    assert found["status"] == "completed" and found["images_seen"] == 72
    metrics, data = found["metrics"], found["data"]
    for task, metric in {"letter": "accuracy", "seen": "mean_iou"}.items():
        score = metrics["tasks"][task][metric]
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1 and score["n"] == data["tasks"][task]["test"]
        assert metrics["tasks"][task]["num_labelled"] == data["tasks"][task]["train"]
    assert set(metrics["skill"]) == {"grid_mask", "decolorise", "downsample"}
    assert set(metrics["skill_by_source"]) == {f"csv/{label_table}/labels.csv", f"images/{image_folder}"}
    # the share of slots for labels is a quarter: 3 images a step
    row = metrics["tasks"]["letter"]
    assert row["epochs"] * row["num_labelled"] <= 6 * 3 + 1e-3
    assert {"curves", "confusion_letter"} <= {file.stem for file in (finished / "figures").iterdir()}


def test_a_run_from_before_consistency_is_the_same_run(finished: Path, supervise, words: list, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = yaml.safe_load((finished / "config.yaml").read_text())
    own = {key: value for key, value in config["joint"].items() if not key.startswith("consistency")}
    assert len(own) == len(config["joint"]) - 4
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({**config, "joint": own}))
    assert supervise("joint", tmp_path / "run", *words) == 0  # completed: its result is shown
    options = {"tasks": {"digits": {"source": "bundled/digits"}}}
    _, key = composer(resolve("study", options, {}), {})("joint", {"seed": 0})
    assert "repair_ratio" in key and "consistency" not in key  # so an older study finds its finished runs


def test_both_losses_are_recorded_and_the_repairs_weight_falls(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in records if record["kind"] == "train"]
    names = {key for record in train for key in record if key.startswith("loss.")}
    assert {"loss.letter", "loss.seen"} < names and names & {"loss.grid_mask", "loss.decolorise", "loss.downsample"}
    # at the last of six steps little of the repair is left in the sum
    last = train[-1]
    tasks = sum(last[name] for name in ("loss.letter", "loss.seen") if name in last)
    left = 0.5 * (1 + math.cos(math.pi * 5 / 6))
    repairs = [last[name] for name in names - {"loss.letter", "loss.seen"} if name in last]
    assert min(repairs) * left - 1e-6 <= last["loss"] - tasks <= max(repairs) * left + 1e-6


def test_the_checkpoint_holds_heads_of_both(finished: Path) -> None:
    state = read_state(finished / "checkpoints" / "best.safetensors")
    assert set(state["task_answers"]) == {"letter", "seen"} and "grid_mask" in state["answers"]
    names = read_tensors(finished / "checkpoints" / "best.safetensors", "model").keys()
    heads = {".".join(name.split(".")[:2]) for name in names if "head" in name}
    assert {"heads.grid_mask", "task_heads.task_seen"} <= heads


@pytest.mark.slow
def test_unlabelled_images_are_repaired(
    supervise, table_tasks, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_mtl.training.repair import RepairFeed

    seen, pools = [], []
    original = RepairFeed.at

    def at(self: RepairFeed, step: int, num_micro_batches: int) -> list:
        pools.append(self.pool)
        seen.append(self.batches.at(step)[0])
        return original(self, step, num_micro_batches)

    monkeypatch.setattr(RepairFeed, "at", at)
    words = [*table_tasks("letter"), "--data.unlabelled", f"images/{image_folder}", "--joint.label_fraction", 0.1]
    assert supervise("joint", tmp_path / "run", *words, "--optim.batch_size", 24, "--optim.steps", 8) == 0
    pool, indices = pools[0], torch.cat(seen)
    sources = {pool.identities[i].split("::")[0].split("/")[0] for i in indices.tolist()}
    assert sources == {"csv", "images"} and len(seen) == 8 and len(indices) == 8 * 12
    # 96 draws, none twice before all once; how many images train depends on the folder's name, which splits go by
    train, drawn = pool.indices("train"), indices.unique()
    assert torch.isin(drawn, train).all() and len(drawn) == min(96, len(train))


@pytest.mark.parametrize(
    ("repair", "consistency", "sizes"),
    [
        (0.5, 0.0, {"repair": 5, "tasks": 5}),
        (0.01, 0.0, {"repair": 1, "tasks": 9}),
        (0.99, 0.0, {"repair": 9, "tasks": 1}),
        (0.25, 0.0, {"repair": 2, "tasks": 8}),
        (0.0, 0.75, {"tasks": 2, "consistency": 8}),
        (0.0, 0.01, {"tasks": 9, "consistency": 1}),
        (0.5, 0.6, {"repair": 5, "tasks": 2, "consistency": 3}),
        (0.99, 0.99, {"repair": 8, "tasks": 1, "consistency": 1}),
    ],
)
def test_the_batches_of_a_step(repair: float, consistency: float, sizes: dict[str, int]) -> None:
    optim = Optim(steps=5, batch_size=10, accumulate=1, learning_rate=0.1)
    found = split_batch(optim, repair, consistency)
    assert {name: own.batch_size for name, own in found.items()} == sizes
    assert {own.learning_rate for own in found.values()} == {0.1}


@pytest.mark.parametrize(
    ("ratio", "consistency", "size", "said"),
    [
        (0.0, 0.0, 8, r"repair_ratio 0 and joint\.consistency_weight 0 leave labels alone: use --stage finetune"),
        (1.0, 0.0, 8, r"repair_ratio must lie in \[0, 1\); found 1\.0"),
        (0.5, 0.0, 1, "batch_size of 2 or more; found 1"),
        (0.5, 0.5, 2, "batch_size of 3 or more; found 2"),
    ],
)
def test_batches_that_cannot_be_split_are_errors(ratio: float, consistency: float, size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_batch(Optim(steps=1, batch_size=size), ratio, consistency)


def test_schedules_by_hand() -> None:
    constant, fall, rise = (weight_schedule(2.0, schedule) for schedule in ("constant", "fall", "rise"))
    for share, expected in {0.0: 2.0, 0.25: 1 + math.sqrt(0.5), 0.5: 1.0, 1.0: 0.0}.items():
        assert constant(share) == 2 and fall(share) == pytest.approx(expected, abs=1e-12)
        assert rise(share) == pytest.approx(2 - expected, abs=1e-12)
    with pytest.raises(UserError, match=r"joint\.repair_weight must be 0 or more; found -1"):
        weight_schedule(-1.0, "constant")


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_result(supervise, table_tasks, whole_and_parts, result) -> None:
    words = [*table_tasks("letter", "seen"), "--optim.accumulate", 2, "--balance.name", "PCGrad"]
    runs = whole_and_parts(lambda folder: supervise("joint", folder, *words))
    one, other = (read_tensors(checkpoints(folder / "checkpoints")[-1], "model") for folder in runs)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    first, second = (result(folder)["metrics"] for folder in runs)
    assert first == second


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--joint.repair_ratio", 1], "joint.repair_ratio must lie in [0, 1); found 1"),
        (["--joint.repair_weight", -2], "joint.repair_weight must be 0 or more; found -2"),
        (["--joint.schedule", "falls"], "Did you mean 'fall'"),
        (
            ["--joint.repair_ratio", 0.1, "--optim.accumulate", 4],
            "optim.accumulate must be at most 1, the images of the smallest of a step's 2 batches; found 4",
        ),
    ],
)
def test_mistakes_are_named(
    supervise, table_tasks, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list, said: str
) -> None:
    assert supervise("joint", tmp_path / "run", *table_tasks("letter"), *words) == 2
    assert said in capsys.readouterr().err


def test_a_task_called_repair_is_refused(
    supervise, tmp_path: Path, label_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--tasks.repair.source", f"csv/{label_table}/labels.csv", "--tasks.repair.label", "letter"]
    assert supervise("joint", tmp_path / "run", *words) == 2
    assert "'repair' is taken by another loss of the training: rename the task" in capsys.readouterr().err

"""`finetune` from the command line: outputs, resuming, starting from a run, and errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.recipes.labels import open_labels
from vision_mtl.recipes.result_text import result_text
from vision_mtl.recipes.single_task import single_task_steps
from vision_mtl.recipes.supervised import build_feed
from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors
from vision_mtl.training.mixing import Mixing
from vision_mtl.training.options import Optim, Runtime

ROOT = Path(__file__).parents[2]
FOUR = ("letter", "shade", "size", "seen")
HEADLINES = {"letter": "accuracy", "shade": "accuracy", "size": "mae", "seen": "mean_iou"}


@pytest.fixture(scope="module")
def finished(supervise, table_tasks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune") / "run"
    words = ["--finetune.single_task", "same_images", "--balance.conflicts_every_steps", 2, "--optim.steps", 6]
    assert supervise("finetune", folder, *table_tasks(*FOUR), *words, "--finetune.num_evaluations", 3) == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(folder / "checkpoints")[-1], "model")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def is_score(score: dict[str, Any], n: int) -> bool:
    return score["low"] <= score["value"] <= score["high"] and score["n"] == n


def test_every_task_is_scored_on_its_test_images(finished: Path, result) -> None:
    found = result(finished)
    assert found["status"] == "completed" and found["images_seen"] == 72 and found["images_per_second"] > 0
    rows, data = found["metrics"]["tasks"], found["data"]["tasks"]
    assert list(rows) == list(FOUR) and found["data"]["num_images"] == 80
    for task, metric in HEADLINES.items():
        assert is_score(rows[task][metric], data[task]["test"]) and rows[task]["kind"] == data[task]["kind"]
        assert rows[task]["fraction"] == 1 and rows[task]["num_labelled"] == data[task]["train"]
        assert 0 < rows[task]["epochs"] < 6 * 12 / rows[task]["num_labelled"]
        own = rows[task]["best_epoch"]
        assert is_score(own[metric], data[task]["test"]) and own["step"] in (2, 4, 6)


@pytest.mark.slow
def test_a_tasks_best_epoch_is_the_shared_one_where_they_fall_together(
    supervise, table_tasks, tmp_path: Path, result
) -> None:
    """With one evaluation, both are the same calibrated weights."""
    words = [*table_tasks("letter", "shade"), "--finetune.num_evaluations", 1]
    assert supervise("finetune", tmp_path / "run", *words) == 0
    for row in result(tmp_path / "run")["metrics"]["tasks"].values():
        own = row["best_epoch"]
        assert own.pop("step") == 4 and own == {metric: row[metric] for metric in own} and "calibration_error" in own


def test_single_task_networks_are_compared_with_the_shared_one(finished: Path, result) -> None:
    metrics = result(finished)["metrics"]
    for task, metric in HEADLINES.items():
        alone, shared, gain = metrics["single"][task], metrics["tasks"][task], metrics["transfer"][task]
        assert is_score(gain, shared[metric]["n"])
        if metric == "accuracy":
            assert gain["value"] == pytest.approx(shared[metric]["value"] - alone[metric]["value"])
        if metric == "mae":
            assert gain["value"] == pytest.approx(alone[metric]["value"] - shared[metric]["value"], rel=1e-5)
        assert alone["steps"] == read_state(finished / "single" / f"{task}.safetensors")["steps"]
        assert alone["steps"] == max(1, round(6 * shared["epochs"] * shared["num_labelled"] / 72))
        # whole images: most carry several labels, so a network alone needs more than its share of the slots
        assert alone["steps"] > 6 / 4


def test_figures_tables_and_fractions_are_there(finished: Path) -> None:
    names = {"curves", "conflicts", "confusion_letter", "confusion_shade"}
    names |= {"scores_accuracy", "scores_mae", "scores_mean_iou"}
    assert {file.stem for file in (finished / "figures").iterdir()} == names
    for name in names:
        with Image.open(finished / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    rows = list(csv.DictReader((finished / "tables" / "letter.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    (kept,) = json.loads((finished / "fractions.json").read_text()).values()
    assert set(kept) == set(FOUR) and all(row["fraction"] == 1 for row in kept.values())


def test_the_best_weights_are_kept_calibrated_and_described(finished: Path, result) -> None:
    folder = finished / "checkpoints"
    assert {file.name for file in folder.glob("best*")} == {
        "best.safetensors",
        *(f"best-{t}.safetensors" for t in FOUR),
    }
    state, tensors = read_state(folder / "best.safetensors"), read_tensors(folder / "best.safetensors", "model")
    assert state["best"]["step"] == state["step"] and state["class_names"]["letter"] == ["a", "b", "c"]
    assert state["task_answers"]["seen"] == {"kind": "dense", "num_outputs": 2, "offset": 0.0, "scale": 1.0}
    assert tensors["task_heads.task_letter.temperature"] != 1 and tensors["task_heads.task_seen.temperature"] == 1
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    judged = {r["step"]: r["tasks"] for r in records if r["kind"] == "validation"}
    found = result(finished)["metrics"]["tasks"]
    means = {step: sum(scores.values()) / 4 for step, scores in judged.items()}
    assert list(means) == [2, 4, 6] and state["step"] == max(reversed(means), key=means.get)
    assert state["best"]["score"] == pytest.approx(max(means.values()))
    for task in FOUR:
        own = max(reversed(judged), key=lambda step: judged[step][task])
        assert found[task]["best_epoch"]["step"] == own


def test_the_result_is_printed_as_a_table(finished: Path, result) -> None:
    text = result_text(result(finished))
    for task, metric in HEADLINES.items():
        (line,) = [line for line in text.splitlines() if line.split()[:2] == [task, metric]]
        assert f"{result(finished)['metrics']['transfer'][task]['value']:+.3f}" in line
    assert "shared - single" in text and "72 images" in text


def test_conflicts_are_recorded(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    cosines = {key: value for r in records for key, value in r.items() if key.startswith("cosine.")}
    assert len(cosines) == 6 and all(-1 <= value <= 1 for value in cosines.values())


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_result(
    supervise, table_tasks, interrupt_at, tmp_path: Path, result
) -> None:
    words = [
        *table_tasks("letter", "size"),
        "--balance.name",
        "uncertainty",
        "--finetune.mixup",
        0.4,
        "--optim.steps",
        6,
    ]
    words += ["--finetune.num_evaluations", 6, "--track.log_every_steps", 1]
    assert supervise("finetune", tmp_path / "whole", *words) == 0
    torch.manual_seed(7)  # whatever came before
    for step in (2, 5):
        interrupt_at(step)
        assert supervise("finetune", tmp_path / "parts", *words) == 130
    interrupt_at(None)
    assert supervise("finetune", tmp_path / "parts", *words) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for name in ("best", "best-letter", "best-size"):
        files = [tmp_path / run / "checkpoints" / f"{name}.safetensors" for run in ("whole", "parts")]
        assert read_state(files[0])["best"] == read_state(files[1])["best"]
        assert same(*(read_tensors(file, "model") for file in files))
    states = [read_tensors(checkpoints(tmp_path / run / "checkpoints")[-1], "balancing") for run in ("whole", "parts")]
    assert same(*states) and states[0]["log_variance_size"] != 0
    assert result(tmp_path / "whole")["metrics"] == result(tmp_path / "parts")["metrics"]


@pytest.mark.slow
def test_the_seed_decides_the_weights(supervise, table_tasks, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        words = [*table_tasks("letter"), "--seed", seed, "--optim.steps", 1]
        assert supervise("finetune", tmp_path / name, *words) == 0
        torch.rand(3)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "again"))
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "other"))


@pytest.mark.slow
def test_without_validation_images_the_last_weights_are_kept_with_a_warning(
    supervise, table_tasks, tmp_path: Path, result
) -> None:
    words = [*table_tasks("letter"), "--data.val_ratio", 0, "--optim.steps"]
    for steps in (2, 3):  # extended, too
        assert supervise("finetune", tmp_path / "run", *words, steps) == 0
        found = result(tmp_path / "run")
        assert any("the last weights are kept" in warning for warning in found["warnings"])
        assert "best_epoch" not in found["metrics"]["tasks"]["letter"]
        best = tmp_path / "run" / "checkpoints" / "best.safetensors"
        assert same(read_tensors(best, "model"), weights(tmp_path / "run")) and read_state(best)["step"] == steps


@pytest.mark.slow
def test_a_fraction_of_the_labels_is_recorded(supervise, table_tasks, tmp_path: Path, result) -> None:
    words = [*table_tasks("letter", "size"), "--finetune.label_fraction", 0.25, "--optim.steps", 2]
    assert supervise("finetune", tmp_path / "run", *words) == 0
    found, kept = result(tmp_path / "run"), json.loads((tmp_path / "run" / "fractions.json").read_text())["0.25"]
    for task in ("letter", "size"):
        row, whole = found["metrics"]["tasks"][task], found["data"]["tasks"][task]["train"]
        assert row["num_labelled"] == len(kept[task]["indices"]) == len(set(kept[task]["identities"]))
        assert row["fraction"] == pytest.approx(row["num_labelled"] / whole) and row["num_labelled"] < 0.6 * whole
        assert kept[task]["requested"] == 0.25 and kept[task]["fraction"] == row["fraction"]


@pytest.fixture
def opened(label_table: Path, root: Path, tmp_path: Path) -> tuple[Pool, RunConfig, Run]:
    source = f"csv/{label_table}/labels.csv"
    tasks = {
        "letter": {"source": source, "label": "letter"},
        "shade": {"source": source, "label": "shade"},
        "size": {"source": source, "label": "size", "kind": "regression"},
        "seen": {"source": source, "kind": "dense", "masks": str(label_table / "masks")},
    }
    pool = build_pool(
        Data(root=str(root), val_ratio=0.2), {n: Task(**t) for n, t in tasks.items()}, image_size=(32, 32)
    )
    return pool, resolve("finetune", {"tasks": tasks}, {}), Run(tmp_path, "finetune")


def test_an_image_has_no_label_beyond_a_tasks_fraction(opened) -> None:
    """Most images have several labels; an image drawn for `size` must not add a letter beyond that task's fraction."""
    pool, config, run = opened
    labelled = open_labels(config, run, pool, 0.25)
    for name in FOUR:
        own, whole = labelled.pool.targets[name], pool.targets[name]
        allowed = set(labelled.train[name].tolist())
        assert set(labelled.pool.indices("train", task=name).tolist()) == allowed
        assert len(allowed) == labelled.records[name]["num_labelled"] < whole.labelled.sum()
        rows = labelled.train[name]
        assert np.array_equal(own.values[rows.numpy()], whole.values[rows.numpy()])
        assert torch.equal(labelled.pool.indices("test", task=name), pool.indices("test", task=name))
        left, every = (set(one.indices("val", task=name).tolist()) for one in (labelled.pool, pool))
        assert left < every and len(left) == labelled.records[name]["num_validation"]
    everything = resolve("finetune", {"tasks": config.section("tasks"), "data": {"validation_labels": "all"}}, {})
    found = open_labels(everything, run, pool, 0.25).pool
    assert all(torch.equal(found.indices("val", task=name), pool.indices("val", task=name)) for name in FOUR)
    accelerator = Runtime(precision="fp32").accelerator("cpu")
    feed = build_feed(labelled, Optim(steps=1, batch_size=24), accelerator, 0, temperature=0.5)
    seen = [feed.loader.at(step) for step in range(6)]
    feed.close()
    for batch in seen:
        for name, (rows, _) in batch.targets.items():
            assert set(batch.indices[rows].tolist()) <= set(labelled.train[name].tolist())
    assert any(len(rows) > int((batch.drawn_for == 0).sum()) for batch in seen for rows, _ in [batch.targets["letter"]])


def test_mixing_is_off_unless_asked_for(opened) -> None:
    pool, config, run = opened
    labelled, accelerator = open_labels(config, run, pool, 1.0), Runtime(precision="fp32").accelerator("cpu")
    for mixing, on in ((Mixing(), False), (None, False), (Mixing(cutmix_alpha=1.0), True)):
        optim = Optim(steps=1, batch_size=12)
        feed = build_feed(labelled, optim, accelerator, 0, temperature=0.5, mixing=mixing)
        ((batch, share),), plain = feed.at(0, 1), feed.loader.at(0)
        feed.close()
        assert torch.equal(batch.images, plain.images) == (not on) and share == 1
        assert all((labels.others is not None) == on for labels in batch.labels.values())


@pytest.mark.slow
def test_tasks_backbone_and_weights_are_inherited_from_a_pretrained_run(
    train, supervise, tmp_path: Path, result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "first", "--backbone.name", "test_resnet", "--optim.steps", "2") == 0
    words = ["--init_from", tmp_path / "first", "--optim.learning_rate", "1e-12", "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "second", *words, "--finetune.freeze", "all", backbone=False) == 0
    assert list(result(tmp_path / "second")["metrics"]["tasks"]) == ["shape"]
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    trunk = [name for name in before if name.startswith("backbone.")]
    assert len(trunk) > 20 and all(torch.equal(before[name], after[name]) for name in trunk)
    assert "initialised from" in capsys.readouterr().err
    assert supervise("finetune", tmp_path / "third", *words, "--backbone.name", "resnet18", backbone=False) == 2
    assert "--backbone.name resnet18 contradicts --init_from" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["early", "all"])
def test_frozen_weights_do_not_change(supervise, table_tasks, tmp_path: Path, freeze: str) -> None:
    words = [*table_tasks("letter"), "--finetune.freeze", freeze, "--optim.layer_decay", 0.8]
    for steps in (1, 3):
        assert supervise("finetune", tmp_path / f"{steps}", *words, "--optim.steps", steps) == 0
    first, later = weights(tmp_path / "1"), weights(tmp_path / "3")
    moved = {name for name, value in first.items() if not torch.equal(value, later[name])}
    trunk = {name for name in moved if name.startswith("backbone.")}
    assert "task_heads.task_letter.project.weight" in moved
    assert all(".layer4." in name or ".stages.3." in name for name in trunk) and bool(trunk) == (freeze == "early")


@pytest.mark.slow
def test_more_steps_train_the_single_networks_anew(supervise, table_tasks, tmp_path: Path, result) -> None:
    words = [*table_tasks("letter"), "--finetune.single_task", "same_steps", "--optim.steps"]
    for steps in (1, 3):
        assert supervise("finetune", tmp_path / "run", *words, steps) == 0
        assert result(tmp_path / "run")["metrics"]["single"]["letter"]["steps"] == steps
        assert read_state(tmp_path / "run" / "single" / "letter.safetensors")["steps"] == steps


@pytest.mark.slow
def test_a_single_task_network_needs_no_balancing(supervise, table_tasks, tmp_path: Path, result) -> None:
    words = [*table_tasks("letter", "shade"), "--balance.name", "Constant", "--balance.kwargs.weights", "[1,2]"]
    assert supervise("finetune", tmp_path / "run", *words, "--finetune.single_task", "same_steps") == 0
    assert set(result(tmp_path / "run")["metrics"]["transfer"]) == {"letter", "shade"}


def test_a_single_task_network_sees_as_many_labelled_images(opened) -> None:
    """Compare with a count: `letter` and `shade` overlap, so the shared network sees more of each than it draws."""
    pool, config, run = opened
    labelled = open_labels(config, run, pool, 1.0).subset(["letter", "shade"])
    accelerator = Runtime(precision="fp32").accelerator("cpu")
    feed = build_feed(labelled, Optim(steps=1, batch_size=12), accelerator, 0, temperature=0.5)
    trainer = SimpleNamespace(feed=feed, progress=SimpleNamespace(step=40))
    batches = [feed.at(step, 1)[0][0] for step in range(40)]
    feed.close()
    drawn_for = torch.cat([feed.loader.batches.at(step)[2] for step in range(40)])
    for number, name in enumerate(("letter", "shade")):
        carried = sum(len(batch.labels[name].rows) for batch in batches if name in batch.labels)
        assert carried > 1.2 * int((drawn_for == number).sum())
        assert single_task_steps(trainer, name, "same_images") == pytest.approx(carried / 12, abs=1)
        assert single_task_steps(trainer, name, "same_steps") == 40


@pytest.mark.slow
def test_two_processes_see_the_same_images_as_one(supervise, table_tasks, tmp_path: Path, root: Path, result) -> None:
    """So each task's mean and the best weights are the same, and single-task networks are saved once."""
    options = ["--backbone.name", "test_vit", "--finetune.single_task", "same_steps", "--optim.accumulate", 2]
    words = [*table_tasks("letter", "size"), *options]
    assert supervise("finetune", tmp_path / "one", *words) == 0
    before = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    given = ["--stage", "finetune", "--config", str(tmp_path / "config.yaml"), "--run_dir", str(tmp_path / "two")]
    done = subprocess.run([*launch, *given], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, atol=5e-3, rtol=0.05)
    found = [result(tmp_path / name)["metrics"] for name in ("one", "two")]
    for part in ("tasks", "single"):
        mae = [metrics[part]["size"]["mae"]["value"] for metrics in found]
        assert mae[0] == pytest.approx(mae[1], rel=0.02)
    assert {file.name for file in (tmp_path / "two" / "single").iterdir()} == {"letter.safetensors", "size.safetensors"}


@pytest.mark.parametrize(
    ("tasks", "words", "said"),
    [
        (("blank",), [], "A column that is blank in every row does not count"),
        (("letter",), ["--tasks.letter.weight", 2], r"balance 'equal' gives every loss weight 1, but 'letter'"),
        (("letter",), ["--finetune.mixup", -1], "mixup must be 0 or more; found -1"),
        (("letter",), ["--finetune.cutmix", -0.5], "cutmix must be 0 or more; found -0.5"),
        (("letter",), ["--finetune.label_fraction", 0], "a label fraction must lie in (0, 1]; found 0"),
        (("letter",), ["--finetune.drop_path_ratio", 1], "drop_path_ratio must lie in [0, 1); found 1"),
        (("letter",), ["--finetune.temperature", 2], "must lie in [0, 1]; found 2"),
        (("letter",), ["--finetune.freeze", "all", "--balance.name", "PCGrad"], "none is trainable"),
        (("letter",), ["--finetune.single_task", "same_image"], "Did you mean 'same_images'"),
        (("letter",), ["--balance.name", "UPGrid"], "Did you mean 'UPGrad'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_mistakes_are_named(
    supervise, table_tasks, tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: tuple, words: list, said: str
) -> None:
    assert supervise("finetune", tmp_path / "run", *table_tasks(*tasks), *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            lambda n: "new" if n > 18 else "old",
            "1 of 2 classes are in the test images and not in the training ones: new",
        ),
        (lambda n: "" if n > 15 else "old", "task 't' has no labelled image for test (of 16 labelled ones)"),
        (lambda n: "old" if n > 15 else "", "task 't' has no labelled image for train (of 4 labelled ones)"),
    ],
    ids=["class", "test", "train"],
)
def test_a_split_without_images_is_named(
    supervise,
    tmp_path: Path,
    label_table: Path,
    capsys: pytest.CaptureFixture[str],
    label: Callable[[int], str],
    said: str,
) -> None:
    lines = [f"{label_table}/{n:02d}.png,{label(n)},{'test' if n > 15 else 'train'}" for n in range(20)]
    (tmp_path / "split.csv").write_text("\n".join(["file,kind,side", *lines]) + "\n")
    words = ["--tasks.t.source", f"csv/{tmp_path}/split.csv", "--tasks.t.label", "kind", "--tasks.t.split", "side"]
    assert supervise("finetune", tmp_path / "run", *words) == 2
    assert said in capsys.readouterr().err


def test_no_task_is_an_error(supervise, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert supervise("finetune", tmp_path / "run", "--data.unlabelled", f"images/{image_folder}") == 2
    assert "finetune needs a labelled task: give --tasks.NAME.source" in capsys.readouterr().err

"""`joint` with consistency: results, images and labels that it may use, errors, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.inference.restore import restore_model
from vision_mtl.training.checkpoint import checkpoints, read_tensors

ON = ["--joint.consistency_weight", 1, "--joint.consistency_threshold", 0.51]
ALONE = [*ON, "--joint.repair_ratio", 0]


@pytest.fixture(scope="module")
def finished(supervise, table_tasks, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consistency") / "run"
    words = [*table_tasks("letter", "shade"), *ALONE, "--joint.consistency_threshold", 0.501]
    words += ["--data.unlabelled", f"images/{image_folder}"]
    words += ["--joint.label_fraction", 0.3, "--track.log_every_steps", 1, "--optim.learning_rate", 0.05]
    assert supervise("joint", folder, *words, "--optim.steps", 8) == 0
    return folder


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [
        r for line in (folder / "metrics.jsonl").read_text().splitlines() if (r := json.loads(line))["kind"] == kind
    ]


def test_results_without_repair(finished: Path, result, label_table: Path) -> None:
    assert any("of data.unlabelled: not used" in text for text in result(finished)["warnings"])
    metrics = result(finished)["metrics"]
    assert "skill" not in metrics and "skill_learned" not in metrics
    assert result(finished)["forward_rows"] == 8 * (6 + 2 * 6) and result(finished)["images_seen"] == 8 * 12
    labels = json.loads((finished / "fractions.json").read_text())["0.3"]
    assert set(metrics["consistency"]) == {"letter", "shade"}
    for task, scores in metrics["consistency"].items():
        assert 0 <= scores["share"]["low"] <= scores["share"]["value"] <= scores["share"]["high"] <= 1
        train = result(finished)["data"]["sources"][f"csv/{label_table}/labels.csv"]["train"]
        assert scores["share"]["n"] == train - labels[task]["num_labelled"]
    # a budget of validation labels, and of these only those with a confident prediction
    assert 0 < metrics["consistency"]["shade"]["pseudo_accuracy"]["n"] <= labels["shade"]["num_validation"]
    model, state = restore_model(str(finished))
    assert not model.heads and state["pretexts"] == {} and set(model.task_specs) == {"letter", "shade"}


def test_the_loss_and_the_shares_are_recorded(finished: Path) -> None:
    lines = records(finished, "train")
    names = {key for line in lines for key in line if key.startswith("loss.")}
    assert names == {"loss.letter", "loss.shade", "loss.consistency.letter", "loss.consistency.shade"}
    last = lines[-1]
    assert last["loss"] == pytest.approx(sum(last[name] for name in names), rel=1e-5)
    found = records(finished, "consistency")
    assert found[-1]["step"] == 8 and set(found[-1]["tasks"]["shade"]) == {"share", "pseudo_accuracy"}
    assert len(found) == len(records(finished, "validation"))


@pytest.mark.parametrize(
    ("tasks", "words", "said"),
    [
        (["letter"], ["--joint.consistency_threshold", 1], "consistency_threshold must lie in (0.5, 1); found 1"),
        (["letter"], ["--joint.consistency_ratio", 0], "consistency_ratio must lie in (0, 1); found 0"),
        (["letter"], ["--joint.consistency_weight", -1], "consistency_weight must be 0 or more; found -1"),
        (["letter"], ["--joint.consistency_images.leter", "images/x"], "Did you mean 'letter'"),
        (
            ["letter"],
            ["--joint.consistency_images.letter", "images/x"],
            "must be one of --data.unlabelled too",
        ),
        (["letter"], ["--joint.consistency_images.letter", "5"], "joint.consistency_images"),
        (
            ["letter", "size"],
            [],
            "but size is of kind regression: leave it out with --joint.consistency_images.size []",
        ),
        (["shade"], ["--joint.consistency_images.shade", "[]"], "no task has an unlabelled image"),
    ],
)
def test_mistakes_are_named(
    supervise, table_tasks, tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: list, words: list, said: str
) -> None:
    given = [*ALONE, "--joint.label_fraction", 0.3, *words]
    assert supervise("joint", tmp_path / "run", *table_tasks(*tasks), *given) == 2
    assert said in capsys.readouterr().err


def test_images_without_a_weight_and_pictures_without_a_pretext_are_named(
    supervise, table_tasks, finished: Path, tmp_path: Path, result, capsys
) -> None:
    words = [*table_tasks("letter"), "--joint.consistency_images.letter", "[]", "--optim.steps", 1]
    assert supervise("joint", tmp_path / "run", *words) == 0
    assert any("consistency_images has no effect" in text for text in result(tmp_path / "run")["warnings"])
    words = ["--stage", "reconstruct", "--init_from", str(finished), "--run_dir", str(tmp_path / "drawn")]
    assert main(words) == 2
    assert "it was trained on no pretext" in capsys.readouterr().err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 pictures of two tones with a column of splits."""
    random, lines = np.random.default_rng(0), ["image,label,split"]
    (tmp_path / "table").mkdir()
    for number in range(60):
        tone = 80 + 80 * (number % 2)
        picture = np.clip(tone + random.normal(0, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "table" / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{'ab'[number % 2]},{('train', 'train', 'val', 'test')[number // 2 % 4]}")
    (tmp_path / "table" / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table" / "labels.csv"


def run_table(table: Path, folder: Path, fraction: float, *words: object) -> int:
    options: dict[str, object] = {"run_dir": folder, "data.root": table.parent.parent / "root", "device": "cpu"}
    options |= {"image_size": 16, "backbone.name": "test_resnet", "runtime.precision": "fp32"}
    options |= {"tasks.tone.source": f"csv/{table}", "tasks.tone.label": "label", "tasks.tone.split": "split"}
    options |= {"optim.steps": 5, "optim.batch_size": 12, "joint.num_evaluations": 2, "track.tensorboard": "false"}
    given = [word for key, value in options.items() for word in (f"--{key}", value)]
    given += [*ALONE, "--joint.label_fraction", fraction, *words]
    return main(["--stage", "joint", *map(str, given)])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(folder / "checkpoints")[-1], "model")


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_labels_outside_the_budget_change_no_weight(table: Path, tmp_path: Path) -> None:
    """Every training and validation label outside the budget gets the other class, if the stratified draw allows."""
    assert run_table(table, tmp_path / "first", 0.3) == 0
    used = json.loads((tmp_path / "first" / "fractions.json").read_text())["0.3"]["tone"]
    named = {identity.rpartition("::")[2] for key in ("identities", "validation_identities") for identity in used[key]}
    original = table.read_text().splitlines()
    changed = list(original)
    for one in range(1, len(original), 2):  # a pair of an a and a b, both of one split: swap their labels
        pair = [original[one].split(","), original[one + 1].split(",")]
        if named.isdisjoint({pair[0][0], pair[1][0]}) and pair[0][2] != "test":
            for place, (row, other) in enumerate((pair, pair[::-1])):
                changed[one + place] = ",".join([row[0], other[1], row[2]])
            table.write_text("\n".join(changed) + "\n")
            if not same_budget(table, tmp_path, used):
                changed[one : one + 2] = original[one : one + 2]
    table.write_text("\n".join(changed) + "\n")
    assert sum(a != b for a, b in zip(original, changed, strict=True)) >= 8
    assert run_table(table, tmp_path / "second", 0.3) == 0
    assert equal(tmp_path / "first", tmp_path / "second")
    first, second = (json.loads((tmp_path / n / "result.json").read_text())["metrics"] for n in ("first", "second"))
    assert first["consistency"] == second["consistency"]


def same_budget(table: Path, tmp_path: Path, used: dict[str, Any]) -> bool:
    from vision_mtl.config.resolve import resolve
    from vision_mtl.data.pool import build_pool
    from vision_mtl.recipes.labels import draw_budget, kept_images

    task = {"source": f"csv/{table}", "label": "label", "split": "split"}
    config = resolve("joint", {"tasks": {"tone": task}, "data": {"root": str(tmp_path / "root")}}, {})
    pool = build_pool(config.data, config.tasks, image_size=(16, 16))
    return kept_images(pool, "tone", draw_budget(config, pool, "tone", 0.3)) == used


@pytest.mark.slow
def test_no_test_image_is_seen(table: Path, tmp_path: Path) -> None:
    """Other pixels of the test images change no weight, in spite of `include_test`."""
    words = ["--data.include_test", "true"]
    assert run_table(table, tmp_path / "first", 0.3, *words) == 0
    for number in range(60):
        if number // 2 % 4 == 3:
            Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(table.parent / f"{number:02d}.png")
    assert run_table(table, tmp_path / "second", 0.3, *words) == 0
    assert equal(tmp_path / "first", tmp_path / "second")


def test_a_task_with_all_labels_is_named(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_table(table, tmp_path / "run", 1.0) == 2
    assert "task tone has no unlabelled image, so consistency does not train it" in (said := capsys.readouterr().err)
    assert "no task has an unlabelled image: all labels are in the budget" in said


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_result(
    supervise, table_tasks, whole_and_parts: Callable, result, image_folder: Path
) -> None:
    words = [*table_tasks("letter", "shade"), *ON, "--joint.label_fraction", 0.4, "--optim.accumulate", 2]
    words += [
        "--data.unlabelled",
        f"images/{image_folder}",
        "--joint.consistency_images.shade",
        f"images/{image_folder}",
    ]
    words += ["--optim.ema_decay", 0.8, "--balance.name", "dwa", "--balance.kwargs.window", 2]
    whole, parts = whole_and_parts(lambda folder: supervise("joint", folder, *words))
    assert equal(whole, parts)
    assert result(whole)["metrics"] == result(parts)["metrics"]
    assert {"skill_learned", "consistency", "tasks"} <= set(result(whole)["metrics"])
    line = records(whole, "train")[-1]
    assert {"weight.letter", "weight.repair", "weight.consistency"} <= set(line)

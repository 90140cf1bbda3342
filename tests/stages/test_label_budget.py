"""Labels outside a run's budget change nothing: those of validation images beyond its fraction, bit for bit.

Each stage runs twice on one table, with other labels of the validation images that its fraction leaves out. The splits
are columns of the table and the images do not change, so only a choice that reads those labels can make a difference.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.recipes.labels import budget_indices, draw_budget
from vision_mtl.study.grid_search import OFFSET

pytestmark = pytest.mark.slow
FRACTION = 0.4
SPLITS = ["train"] * 3 + ["val"] * 4 + ["test"] * 3  # of every ten images
TASK = {"label": "label", "split": "split"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 120 pictures of three classes, which differ in brightness."""
    random, lines = np.random.default_rng(0), ["image,label,split"]
    for number in range(120):
        tone = 60 + 60 * (number % 3)
        picture = np.clip(tone + random.normal(0, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
        (tmp_path / "table").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "table" / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{'abc'[number % 3]},{SPLITS[number // 3 % 10]}")
    (tmp_path / "table" / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table" / "labels.csv"


def opened(table: Path) -> Pool:
    tasks = {"tone": Task(source=f"csv/{table}", **TASK)}
    return build_pool(Data(root=str(table.parent.parent / "root")), tasks, image_size=(16, 16))


def configs_of(table: Path) -> list[RunConfig]:
    """The config of each seed: of the runs, and of a study's search of its grids."""
    tasks = {"tone": {"source": f"csv/{table}", **TASK}}
    return [resolve("finetune", {"seed": seed, "tasks": tasks}, {}) for seed in (0, OFFSET)]


def budgets_of(pool: Pool, configs: list[RunConfig]) -> list[list[int]]:
    """The training and validation images of each config."""
    found = []
    for config in configs:
        found += [rows.tolist() for rows in budget_indices(pool, "tone", draw_budget(config, pool, "tone", FRACTION))]
    return found


def swap_labels(table: Path) -> int:
    """Swap labels of validation images outside the budget, and return the number of images with another label.

    A swap that would change the draw, which is stratified by class, is left out.
    """
    pool = opened(table)
    configs = configs_of(table)
    before, labels = budgets_of(pool, configs), pool.labels["tone"]
    outside = sorted({*pool.indices("val").tolist()} - {*before[1], *before[3]})
    original = labels.copy()
    for one in outside:
        for other in outside:
            if labels[one] == original[one] and labels[other] == original[other] and labels[one] != labels[other]:
                labels[[one, other]] = labels[[other, one]]
                if budgets_of(pool, configs) != before:
                    labels[[one, other]] = labels[[other, one]]
    names = {pool.identities[row].rpartition("::")[2]: "abc"[labels[row]] for row in range(len(pool))}
    lines = [line.split(",") for line in table.read_text().splitlines()]
    lines = [lines[0], *([image, names[image], split] for image, _, split in lines[1:])]
    table.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return int((labels != original).sum())


def run_stage(stage: str, table: Path, folder: Path, *words: object) -> dict[str, Any]:
    options: dict[str, object] = {"run_dir": folder, "data.root": table.parent.parent / "root", "device": "cpu"}
    options |= {"image_size": 16, "backbone.name": "test_resnet", "runtime.precision": "fp32", "console": "quiet"}
    options |= {"tasks.tone.source": f"csv/{table}"} | {f"tasks.tone.{key}": value for key, value in TASK.items()}
    if stage != "probe":
        options |= {"optim.steps": 6, "optim.batch_size": 9, "track.tensorboard": "false"}
        options |= {f"{stage}.label_fraction": FRACTION, f"{stage}.num_evaluations": 6}
    given = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    assert main(["--stage", stage, *given, *map(str, words)]) == 0
    return json.loads((folder / "result.json").read_text())["metrics"]


def probe(table: Path, folder: Path, *words: object) -> dict[str, Any]:
    found = run_stage("probe", table, folder, "--probe.fractions", FRACTION, "--probe.heads", "false", *words)
    return found["fractions"][f"{FRACTION:g}"]


def study(table: Path, folder: Path, *words: object) -> dict[str, Any]:
    every = {"optim": {"steps": 4, "batch_size": 9}}
    options = {
        "stage": "study",
        "image_size": 16,
        "device": "cpu",
        "backbone": {"name": "test_resnet"},
        "runtime": {"precision": "fp32"},
        "tasks": {"tone": {"source": f"csv/{table}", **TASK}},
        "data": {"root": str(table.parent.parent / "root")},
        "study": {
            "seeds": [0],
            "num_jobs": 1,
            "fractions": [FRACTION],
            "arms": {
                "tuned": {"stages": ["finetune"], "grid": {"finetune.optim.learning_rate": [0.001, 0.01]}},
                "probed": {"stages": ["probe"], "grid": {"probe.probe.poolings": [["mean"], ["max"]]}},
            },
            "options": {"finetune": every},
        },
    }
    folder.with_suffix(".yaml").write_text(yaml.safe_dump(options))
    words = ("--config", folder.with_suffix(".yaml"), "--run_dir", folder, "--console", "quiet", *words)
    assert main([str(word) for word in words]) == 0
    record = json.loads((folder / "study.json").read_text())
    return {key: record[key] for key in ("arms", "scores", "comparisons")}


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "finetune": lambda *given: run_stage("finetune", *given),
    "joint": lambda *given: run_stage("joint", *given),
    "probe": probe,
    "study": study,
}


@pytest.mark.parametrize("stage", STAGES)
def test_validation_labels_outside_the_budget_change_nothing(stage: str, table: Path, tmp_path: Path) -> None:
    run = STAGES[stage]
    first = run(table, tmp_path / "first")
    with_all = run(table, tmp_path / "all", "--data.validation_labels", "all")
    assert swap_labels(table) >= 10
    assert run(table, tmp_path / "second") == first
    assert run(table, tmp_path / "all_second", "--data.validation_labels", "all") != with_all, "the labels matter"
    counts = first.get("scores") or [first["tasks"]["tone"]]
    assert {(row["num_labelled"], row["num_validation"]) for row in counts} == {(15, 18)}


def test_the_budget_is_nested_and_has_every_class(table: Path) -> None:
    pool = opened(table)
    config = resolve("finetune", {"tasks": {"tone": {"source": f"csv/{table}", **TASK}}}, {})
    found = [draw_budget(config, pool, "tone", fraction) for fraction in (0.01, FRACTION, 1.0)]
    sets = [[set(rows.tolist()) for rows in budget_indices(pool, "tone", budget)] for budget in found]
    for inner, outer in itertools.pairwise(sets):
        assert all(a < b for a, b in zip(inner, outer, strict=True))
    assert [budget.validation.num_labelled for budget in found] == [3, 18, 48]
    assert set(pool.labels["tone"][list(sets[0][1])]) == {0, 1, 2}
    assert "validation: 0.01 of 48 labels" in found[0].warnings()[1]


def test_a_study_shows_the_references_of_a_probe_and_both_numbers_of_labels(table: Path, tmp_path: Path) -> None:
    scores = {row["arm"]: row for row in study(table, tmp_path / "run")["scores"]}
    assert (
        set(scores["probed"]["references"]) == {"linear_random_init", "hog_knn"} and not scores["tuned"]["references"]
    )
    text = (tmp_path / "run" / "report.md").read_text()
    assert (
        "| training labels | validation labels | score [95 %] | chance [95 %] | linear random init | hog knn |" in text
    )
    head = (tmp_path / "run" / "tables" / "scores.csv").read_text().splitlines()[0]
    assert "num_labelled,num_validation" in head and "hog_knn,hog_knn_low,hog_knn_high" in head

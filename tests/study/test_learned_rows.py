"""What a study records of its runs: skill learned over the seeds, counts of labels, and equal splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_records import study
from scipy.stats import ttest_1samp

from vision_mtl.core.errors import UserError
from vision_mtl.study.learned import learned_rows, mean_over_runs
from vision_mtl.study.record import commit_warning, run_row
from vision_mtl.study.report import write_report
from vision_mtl.study.split_check import check_splits

ARMS = {"plain": ["finetune"], "pretrained": ["pretrain", "finetune"], "longer": ["pretrain", "joint"]}
RESULT = {"seconds": 1.0, "images_seen": 64, "warnings": [], "metrics": {}}


def write(runs, **by_stage: list[dict]) -> None:
    """Write `result.json` of every run of the plan; those of a stage in the order of the seeds."""
    for node in runs.plan.nodes.values():
        given = by_stage.get(node.stage, [])
        folder = runs.folder / node.folder
        folder.mkdir(parents=True, exist_ok=True)
        own = given[node.seed % len(given)] if given else {}
        (folder / "result.json").write_text(json.dumps(RESULT | own))


def learned(value: float, called: bool, reference: str = "back-projection") -> dict:
    score = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "num_clusters": 9}
    return {"metrics": {"skill_learned": {"downsample": score | {"learned": called, "reference": reference}}}}


def test_an_interval_over_runs_is_students() -> None:
    values = [0.1, 0.14, 0.07, 0.2]
    found, by_scipy = mean_over_runs(values), ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((by_scipy.low, by_scipy.high))
    assert found.value == pytest.approx(np.mean(values)) and mean_over_runs([0.1]).low is None


def test_skill_learned_is_a_mean_over_seeds(written) -> None:
    runs = written(ARMS, [0.1], [0, 1, 2])
    write(runs, pretrain=[learned(0.1, True), learned(0.2, True), learned(0.0, False, "bicubic")])
    (row,) = learned_rows(runs.plan, runs.finals, runs.folder)
    assert (row["arms"], row["stage"], row["pretext"]) == (["pretrained", "longer"], "pretrain", "downsample")
    assert row["score"]["value"] == pytest.approx(0.1) and row["score"]["low"] < 0 < row["score"]["high"]
    assert (row["num_runs"], row["num_learned"]) == (3, 2) and len(row["runs"]) == 3
    assert row["references"] == ["back-projection", "bicubic"]


def test_an_arm_that_shares_some_of_its_runs_has_a_row_of_all_its_runs(written) -> None:
    once = {"stages": ["pretrain", "finetune"], "pretrain": {"seed": 0}}
    runs = written(ARMS | {"once": once}, [0.1], [0, 1, 2])
    write(runs, pretrain=[learned(0.1, True), learned(0.2, True), learned(0.0, False)])
    rows = learned_rows(runs.plan, runs.finals, runs.folder)
    found = {tuple(row["arms"]): (row["score"]["value"], row["num_runs"], row["num_learned"]) for row in rows}
    assert found == {("pretrained", "longer"): (pytest.approx(0.1), 3, 2), ("once",): (0.1, 1, 1)}


def test_runs_of_a_grid_search_do_not_count(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    runs.plan.add(runs.arms["pretrained"], 0.1, 10_000)  # a tuning seed
    write(runs, pretrain=[learned(0.1, True), learned(0.3, True)])
    (row,) = learned_rows(runs.plan, runs.finals, runs.folder)
    assert row["num_runs"] == 2


def test_older_runs_give_no_row(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    write(runs)
    assert learned_rows(runs.plan, runs.finals, runs.folder) == []


def test_labels_to_train_and_to_choose_with_are_counted(written) -> None:
    runs = written({"plain": ["finetune"]}, [0.1], [0])
    counted = {"num_labelled": 40, "num_validation": 5, "accuracy": {"value": 0.5}}
    write(runs, finetune=[{"metrics": {"tasks": {"pets": counted, "age": {"num_labelled": 7}}}}])
    (node,) = runs.plan.nodes.values()
    row = run_row(node, runs.folder)
    assert row["split_hash"] is None
    assert row["labels"] == {
        (0.1, "pets"): {"num_labelled": 40, "num_validation": 5},
        (0.1, "age"): {"num_labelled": 7, "num_validation": None},
    }


def test_runs_of_several_commits_are_named(written) -> None:
    runs = written({"plain": ["finetune"]}, [0.1], [0, 1])
    write(runs)
    nodes = list(runs.plan.nodes.values())
    (runs.folder / nodes[0].folder / "environment.json").write_text(json.dumps({"commit": "a" * 40}))
    rows = [run_row(node, runs.folder) for node in nodes]
    assert [row["commit"] for row in rows] == ["a" * 40, None]
    assert commit_warning(rows) == []
    (runs.folder / nodes[1].folder / "environment.json").write_text(json.dumps({"commit": "b" * 40 + "+changes"}))
    (text,) = commit_warning([run_row(node, runs.folder) for node in nodes])
    assert text.endswith("runs by commit: aaaaaaaaaaaa: 1, bbbbbbbbbbbb+changes: 1.")


def splits(name: str, *sources: str) -> dict:
    return {"data": {"split_hash": name, "sources": {key: {} for key in sources}}}


def test_runs_of_the_same_images_need_the_same_splits(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    study_data = splits("a", "tasks", "pile")["data"]
    fine = {"pretrain": [splits("a", "pile", "tasks")], "joint": [splits("a", "tasks", "pile")]}
    write(runs, **fine, finetune=[splits("b", "tasks")])
    check_splits(runs.plan, runs.folder, study_data)
    write(runs, **fine, finetune=[splits("b", "tasks"), {"data": {"sources": {"tasks": {}}}}])  # an older run
    check_splits(runs.plan, runs.folder, study_data)
    write(runs, **fine, finetune=[splits("b", "tasks"), splits("c", "tasks")])
    with pytest.raises(UserError, match=r"the splits differ: runs/finetune-s0-\w+ has split_hash b, runs/.* has c"):
        check_splits(runs.plan, runs.folder, study_data)
    write(runs, pretrain=[splits("d", "pile", "tasks")])
    with pytest.raises(UserError, match=r"the study has split_hash a, runs/pretrain.* has d, .* images of pile, tasks"):
        check_splits(runs.plan, runs.folder, study_data)


def test_the_report_shows_what_was_learned_and_with_which_labels(tmp_path: Path) -> None:
    record = study({"labels": 0.0, "pretrained": 0.3}, fractions=(0.1,))
    write_report(record, tmp_path / "older")
    assert "skill learned" not in (tmp_path / "older" / "report.md").read_text()
    assert not (tmp_path / "older" / "tables" / "learned.csv").exists()
    for row in record["scores"]:
        row["num_validation"] = 47
    score = {"value": 0.0612, "low": 0.01, "high": 0.11, "n": 8, "num_clusters": 8}
    row = {"arms": ["pretrained"], "stage": "pretrain", "pretext": "downsample", "score": score, "num_runs": 8}
    record["skill_learned"] = [row | {"num_learned": 7, "references": ["back-projection"], "runs": []}]
    record["split_hash"] = "0123456789abcdef"
    write_report(record, tmp_path / "new")
    text = (tmp_path / "new" / "report.md").read_text()
    assert "| pretrained | pretrain | downsample | +0.061 [0.010, 0.110] | 7 of 8 | back-projection |" in text
    assert "| training labels | validation labels |" in text and "| 27 | 47 |" in text
    assert "| hash of the splits | 0123456789abcdef |" in text
    page = (tmp_path / "new" / "report.html").read_text()
    assert "Skill learned (tables/learned.csv)" in page and "7 of 8" in page
    header, line = (tmp_path / "new" / "tables" / "learned.csv").read_text().splitlines()
    assert "skill_learned_low" in header and line.startswith("pretrained,pretrain,downsample,0.0612,0.01,0.11,8,7")

"""`study`: arms are paired, share runs and resume; a killed study ends with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vision_mtl.cli.command import main
from vision_mtl.discovery.selection import Selection
from vision_mtl.discovery.selection import controls as selection_controls

pytestmark = pytest.mark.slow  # studies, one of them killed

ROOT = Path(__file__).parents[2]
TINY = {"optim": {"steps": 3, "batch_size": 12}}
OPTIONS = {
    "discover": {"optim": {"steps": 2, "batch_size": 8}, "discover": {"num_images": 8, "num_scorings": 0}},
    "pretrain": TINY,
    "finetune": TINY | {"finetune": {"num_evaluations": 2}},
    "joint": TINY | {"joint": {"num_evaluations": 1}},
}
Study = Callable[..., int]


@pytest.fixture(scope="session")
def study(root: Path, label_table: Path) -> Study:
    """Run a study of tiny runs in this process; keywords are the stage's options."""

    def run(folder: Path, *words: str, **own: Any) -> int:
        file = folder.with_suffix(".yaml")
        config = tiny(root, label_table, **own)
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        return main(["--config", str(file), "--run_dir", str(folder), *words])

    return run


def tiny(root: Path, label_table: Path, **own: Any) -> dict[str, Any]:
    source = f"csv/{label_table}/labels.csv"
    return {
        "stage": "study",
        "image_size": 32,
        "device": "cpu",
        "backbone": {"name": "test_resnet"},
        "data": {"root": str(root), "val_ratio": 0.25},
        "tasks": {"letter": {"source": source, "label": "letter"}, "shade": {"source": source, "label": "shade"}},
        "study": {"seeds": [0, 1], "fractions": [0.5], "num_jobs": 1, "options": OPTIONS} | own,
    }


def runs_of(folder: Path, stage: str) -> list[Path]:
    return [path.parent for path in folder.glob(f"runs/{stage}-*/result.json")]


ARMS = {
    "plain": ["finetune"],
    "pretrained": ["pretrain", "finetune"],
    "probe": ["pretrain", "probe"],
    "joint": ["joint"],
}


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "run"
    assert study(folder, arms=ARMS, fractions=[0.5, 1.0]) == 0
    return folder


def test_arms_that_share_a_pretraining_run_it_once(finished: Path, result) -> None:
    assert len(runs_of(finished, "pretrain")) == 2  # a seed each, for 2 arms x 2 fractions
    assert len(runs_of(finished, "finetune")) == 8 and len(runs_of(finished, "joint")) == 4
    assert len(runs_of(finished, "probe")) == 2
    cost = result(finished)["metrics"]["cost"]
    assert (cost["num_runs"], cost["num_runs_unshared"]) == (16, 2 * 2 * (1 + 2 + 2 + 1))
    (start,) = {
        yaml.safe_load((run / "config.yaml").read_text())["init_from"] for run in runs_of(finished, "probe")
    } & {str(run) for run in runs_of(finished, "pretrain") if "-s0-" in run.name}
    assert Path(start).is_dir()


def test_the_result_says_what_each_arm_costs(finished: Path, result) -> None:
    costs = {row["arm"]: row for row in result(finished)["metrics"]["arm_costs"] if row["fraction"] == 0.5}
    assert costs["plain"]["steps"] == 3 and costs["pretrained"]["steps"] == 6
    assert costs["plain"]["forward_rows"] == costs["plain"]["images_seen"] == 36
    rows = [result(run)["forward_rows"] for run in runs_of(finished, "pretrain")]
    assert costs["pretrained"]["forward_rows"] == 36 + sum(rows) / len(rows)
    assert all(36 < count <= 2 * 36 for count in rows), "two views of an image count twice"
    assert costs["pretrained"]["training_seconds"] > 0
    assert costs["plain"]["backbone_parameters"] == costs["joint"]["backbone_parameters"] > 1000
    assert costs["probe"]["steps"] == 3  # of its pretraining; a probe takes none


def test_arms_may_have_backbones_of_their_own(study: Study, tmp_path: Path, result) -> None:
    own = {"name": "test_efficientnet", "input_size": 64}
    arms = {
        "plain": ["finetune"],
        "own": {"stages": ["pretrain", "finetune"], "backbone": own, "not_independent": ["shade"]},
    }
    assert study(tmp_path / "run", arms=arms, rope={"letter": 0.5}) == 0
    found = result(tmp_path / "run")["metrics"]
    sizes = {row["arm"]: row["backbone_parameters"] for row in found["arm_costs"]}
    assert len(set(sizes.values())) == 2
    names = {yaml.safe_load((run / "config.yaml").read_text())["backbone"]["name"]
             for run in runs_of(tmp_path / "run", "finetune")}  # fmt: skip
    assert names == {"test_resnet", "test_efficientnet"}
    rows = {row["task"]: row for row in found["comparisons"]}
    assert [rows[task]["independent"] for task in ("letter", "shade")] == [True, False]
    assert [rows[task]["rope"] for task in ("letter", "shade")] == [0.5, 0.01]
    (overall,) = found["improvements"]
    assert overall["tasks"] == ["letter"] and 0 <= overall["probability_of_improvement"]["value"] <= 1
    assert "not independent" in (tmp_path / "run" / "report.md").read_text("utf-8")


def test_the_result_contains_every_comparison(finished: Path, result) -> None:
    found = result(finished)
    assert found["status"] == "completed" and found["stage"] == "study"
    rows = found["metrics"]["comparisons"]
    assert len(rows) == 3 * 2 * 2  # arms against the first, fractions, tasks
    keys = {
        "task",
        "fraction",
        "arm",
        "baseline",
        "difference",
        "p_value",
        "p_value_holm",
        "minimum_detectable",
        "verdict",
    }
    assert all(keys <= row.keys() and row["baseline"] == "plain" and row["num_seeds"] == 2 for row in rows)
    for row in found["metrics"]["scores"]:  # a score is the mean of the runs' own
        values = [one["value"] for one in row["by_seed"]]
        assert row["score"]["value"] == pytest.approx(sum(values) / 2)
    one = next(
        r for r in found["metrics"]["scores"] if (r["arm"], r["task"], r["fraction"]) == ("plain", "letter", 0.5)
    )
    own = {
        value["metrics"]["tasks"]["letter"]["accuracy"]["value"]
        for value in map(result, runs_of(finished, "finetune"))
        if value["metrics"]["tasks"]["letter"]["requested"] == 0.5
    }
    assert {seed["value"] for seed in one["by_seed"]} <= own


def test_the_report_is_written_and_few_other_files_are_kept(finished: Path) -> None:
    assert {"report.html", "report.md", "study.json", "tables"} <= {path.name for path in finished.iterdir()}
    assert "pretrained" in (finished / "report.md").read_text()
    for run in runs_of(finished, "finetune"):
        assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.safetensors"}
        assert (run / "test_instances.parquet").is_file()
    record = json.loads((finished / "study.json").read_text())
    assert {picture["title"] for picture in record["pictures"]} == {"Repairs of test images"}
    assert all(row["wall_seconds"] > 0 and row["resumes"] == 0 for row in record["runs"])
    assert {row["split_hash"] for row in record["runs"]} == {record["split_hash"]}
    assert all((finished / picture["path"]).is_file() for picture in record["pictures"])
    assert {row["pretrainings"] for row in record["comparisons"]} == {2, None}  # of the joint arm: none


def test_the_same_command_shows_the_result_and_more_seeds_extend_it(study: Study, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    arms = {"plain": ["finetune"], "other": {"stages": ["finetune"], "finetune": {"optim": {"learning_rate": 0.01}}}}
    assert study(folder, arms=arms) == 0
    before = {run: (run / "result.json").stat().st_mtime_ns for run in runs_of(folder, "finetune")}
    assert len(before) == 4
    assert study(folder, arms=arms) == 0 and "is completed" in capsys.readouterr().err
    assert study(folder, arms=arms, num_jobs=2) == 0 and "is completed" in capsys.readouterr().err
    assert study(folder, arms=arms, seeds=[0, 1, 2]) == 0
    assert "1 seed was added to 2" in capsys.readouterr().err
    after = {run: (run / "result.json").stat().st_mtime_ns for run in runs_of(folder, "finetune")}
    assert len(after) == 6 and before.items() <= after.items()  # finished runs were left alone
    assert study(folder, arms=arms, seeds=[0, 1, 2], fractions=[1.0]) == 2
    assert "study.fractions: [0.5] there, [1.0] here" in capsys.readouterr().err


def test_the_same_recipe_twice_gives_the_same_scores(study: Study, tmp_path: Path, result) -> None:
    """A/A test: without sharing, both arms are run, and with equal seeds they are bit-identical."""
    arms = {"a": ["pretrain", "finetune"], "b": ["pretrain", "finetune"]}
    assert study(tmp_path / "run", arms=arms, share=False) == 0
    assert len(runs_of(tmp_path / "run", "pretrain")) == 4 and len(runs_of(tmp_path / "run", "finetune")) == 4
    found = result(tmp_path / "run")["metrics"]
    a, b = ([row["by_seed"] for row in found["scores"] if row["arm"] == arm] for arm in "ab")
    assert a == b
    for row in found["comparisons"]:
        assert row["difference"]["value"] == row["difference"]["low"] == row["difference"]["high"] == 0
        assert row["verdict"] == "undecided" and row["p_value"] == 1


def test_separate_tasks_and_a_grid(study: Study, tmp_path: Path, result) -> None:
    grid = {"finetune.optim.learning_rate": [0.001, 0.05]}
    arms = {
        "shared": {"stages": ["finetune"], "grid": grid},
        "alone": {"stages": ["finetune"], "separate": True, "grid": grid},
    }
    assert study(tmp_path / "run", arms=arms, compare=["shared - alone"]) == 0
    runs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs_of(tmp_path / "run", "finetune")]
    searched = [run for run in runs if run["seed"] >= 10_000]
    assert len(searched) == 2 * (1 + 2) and len(runs) - len(searched) == 2 * (1 + 2)  # candidates; seeds
    record = json.loads((tmp_path / "run" / "study.json").read_text())
    for name in arms:
        (chosen,) = record["arms"][name]["chosen"]
        best = max(chosen["tried"], key=lambda row: row["validation"])
        assert chosen["options"] == best["options"] and len(chosen["tried"]) == 2
        rates = {
            r["optim"]["learning_rate"] for r in runs if r["seed"] < 10 and (len(r["tasks"]) == 2) == (name == "shared")
        }
        assert rates == set(chosen["options"].values())
    assert {row["arm"] for row in result(tmp_path / "run")["metrics"]["comparisons"]} == {"shared"}


def test_the_downstream_test_of_a_selection(
    study: Study, tmp_path: Path, result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arms share one discovery; each pretrains on its selection file."""

    def all_of_it(selection: Selection) -> dict[str, Selection]:
        found = selection_controls(selection)
        return {
            name: replace(one, columns={**one.columns, "weight": one.columns["weight"] * 0 + 1})
            for name, one in found.items()
        }

    monkeypatch.setattr(
        "vision_mtl.discovery.selection.controls", all_of_it
    )  # two steps on eight images give a random result
    selected = {
        "stages": ["discover", "pretrain", "finetune"],
        "discover": {"seed": 0, "pretexts": {"decolorise": None}},
        "pretrain": {"selection": "{discover}/selection-hopeless.parquet"},
    }
    longer = {"extends": "hopeless", "pretrain": {"optim": {"steps": 4}}}
    arms = {"none": ["finetune"], "hopeless": selected, "longer": longer}
    assert study(tmp_path / "run", arms=arms) == 0
    (discovery,) = runs_of(tmp_path / "run", "discover")
    pretrained = runs_of(tmp_path / "run", "pretrain")
    assert len(pretrained) == 2 * 2
    for run in pretrained:
        given = yaml.safe_load((run / "config.yaml").read_text())
        assert given["pretrain"]["selection"] == f"{discovery}/selection-hopeless.parquet"
        assert list(given["pretexts"]) == ["decolorise"]  # taken over from the selection
    rows = result(tmp_path / "run")["metrics"]["comparisons"]
    assert {row["arm"] for row in rows} == {"hopeless", "longer"}
    assert all(row["pretrainings"] == 1 and row["scope"].startswith("over one discovery:") for row in rows)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"arms": {"a": ["finetun"]}}, "Did you mean 'finetune'"),
        (
            {"arms": {"a": {"stages": ["finetune"], "finetune": {"optim": {"stepz": 1}}}}},
            "study arm a, stage finetune: .*stepz",
        ),
        ({"options": {"finetune": {"optim": {"max_seconds": 5}}}}, "budgets are optim.steps"),
        ({"options": {"train": {}}}, "unknown stage in study.options 'train'"),
        ({"seeds": [1, 1]}, r"each once; found \[1, 1\]"),
        ({"fractions": [0.0]}, r"numbers in \(0, 1\]"),
        ({"compare": ["pretrained vs labelled_only"]}, '"ARM - BASELINE"'),
        ({"compare": ["pretrained - labeled_only"]}, "Did you mean 'labelled_only'"),
        ({"num_tuning_seeds": 0}, "1 or more; found 0"),
    ],
)
def test_mistakes_are_named_before_any_run(study: Study, tmp_path: Path, capsys, own: dict, said: str) -> None:
    import re

    assert study(tmp_path / "run", **own) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run" / "runs").exists()


def test_an_arm_may_start_from_a_run_outside(study: Study, finished: Path, tmp_path: Path, capsys) -> None:
    outside = str(runs_of(finished, "pretrain")[0])
    assert study(tmp_path / "all", "--init_from", outside) == 2
    assert "each arm of a study has its own start" in capsys.readouterr().err
    arms = {"plain": ["finetune"], "published": {"stages": ["finetune"], "finetune": {"init_from": outside}}}
    assert study(tmp_path / "run", arms=arms, seeds=[0]) == 0
    logs = [file.read_text() for file in (tmp_path / "run" / "runs").glob("finetune-*.log")]
    assert sum(f"initialised from {outside}" in text for text in logs) == 1 and len(logs) == 2


def test_a_failed_run_is_named_and_the_rest_is_kept(study: Study, tmp_path: Path, capsys) -> None:
    broken = {"stages": ["finetune"], "finetune": {"optim": {"learning_rate": 1e30}}}
    arms = {"plain": ["finetune"], "broken": broken}
    assert study(tmp_path / "run", arms=arms) == 2
    said = capsys.readouterr().err
    assert "2 of 4 runs failed" in said and "2 runs are finished and kept" in said and "non-finite" in said
    assert len([run for run in runs_of(tmp_path / "run", "finetune") if finished_run(run)]) == 2


def finished_run(run: Path) -> bool:
    return json.loads((run / "result.json").read_text())["status"] == "completed"


def test_a_killed_study_ends_with_the_same_result(
    study: Study, tmp_path: Path, root: Path, label_table: Path, result
) -> None:
    arms = {"plain": ["finetune"], "pretrained": ["pretrain", "finetune"]}
    assert study(tmp_path / "whole", arms=arms) == 0
    folder = tmp_path / "killed"
    folder.with_suffix(".yaml").write_text(
        yaml.safe_dump(tiny(root, label_table, arms=arms, num_jobs=2), sort_keys=False)
    )
    words = [sys.executable, "train.py", "--config", str(folder.with_suffix(".yaml")), "--run_dir", str(folder)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not runs_of(folder, "finetune"):
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # the workers as well
    process.wait()
    assert study(folder, arms=arms) == 0
    assert result(folder)["metrics"]["comparisons"] == result(tmp_path / "whole")["metrics"]["comparisons"]
    assert result(folder)["metrics"]["scores"] == result(tmp_path / "whole")["metrics"]["scores"]
    reports = [(path / "report.md").read_text().replace(path.name, "NAME") for path in (folder, tmp_path / "whole")]
    verdicts = [text.partition("## The verdict")[2].partition("## How to read")[0] for text in reports]
    assert verdicts[0] == verdicts[1] and "pretrained" in verdicts[0]

"""benchmarks/repairs.py on the folders of made-up runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t

from benchmarks import record, repairs, tables, tables_studies
from vision_mtl.config.resolve import resolve

COMMIT = "1234567890" * 4
PHOTOS, FACES = "bundled/photos", "bundled/faces"


def write_run(folder: Path, seed: int, value: float, **changes: Any) -> Path:
    """Write what the benchmark reads of a pretraining run; `changes` replace commit, split_hash, status or config."""
    one = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 40, "num_clusters": 7}
    one |= {"learned": value > 0.01, "reference": "bicubic" if value > 0 else "back_projection"}
    metrics = {
        "skill_learned": {
            "downsample": {**one, "reference": {PHOTOS: "bicubic", FACES: "start"}},
            "rotation": {**one, "value": 0.5},
        },
        "skill_learned_by_source": {PHOTOS: {"downsample": one}, FACES: {"rotation": {**one, "value": 0.5}}},
    }
    data = {"split_hash": changes.get("split_hash", "ab12")}
    result = {"stage": "pretrain", "status": changes.get("status", "completed"), "seed": seed, "seconds": 1.0}
    environment = {"command": ["train.py"], "commit": changes.get("commit", COMMIT), "machine": "Linux", "cpus": 2}
    file = {"data": {"unlabelled": [PHOTOS, FACES], "split_seed": 1}, **changes.get("config", {})}
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result | {"images_seen": 64, "data": data, "metrics": metrics}))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "config.yaml").write_text(resolve("pretrain", {"seed": seed, **file}, {}).to_yaml())
    return folder


def ask(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Run the benchmark on the folders."""
    monkeypatch.setattr(sys, "argv", ["repairs.py", *map(str, folders)])
    repairs.main()


def test_it_takes_the_mean_and_the_interval_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "environment", lambda: {"commit": COMMIT, "command": ["repairs.py"], "cpus": 2})
    values = (-0.02, 0.04, 0.07)
    ask(monkeypatch, *(write_run(tmp_path / str(seed), seed, value) for seed, value in enumerate(values)))
    found = json.loads((tmp_path / "repairs.json").read_text())
    assert [(row["pretext"], row["source"]) for row in found["rows"]] == [
        ("downsample", "all"),
        ("downsample", PHOTOS),
        ("rotation", "all"),
        ("rotation", FACES),
    ]
    row = found["rows"][1]
    assert row["value"] == pytest.approx(0.03) and row["values"] == list(values)
    reach = t.ppf(0.975, 2) * 0.0458257569 / 3**0.5  # by hand: variance (.05² + .01² + .04²) / 2
    assert (row["low"], row["high"]) == (pytest.approx(0.03 - reach), pytest.approx(0.03 + reach))
    assert (row["num_learned"], row["num_seeds"], row["n"], row["num_clusters"]) == (2, 3, 40, 7)
    assert row["reference"] == "back_projection or bicubic"
    assert found["rows"][0]["reference"] == "the best rule of each source"
    assert row["num_judged"] == 3 and "| 2 of 3 | 40 (7) |" in tables.markdown(tables_studies.repairs(found))
    few = {**found, "rows": [{**row, "num_judged": 0}]}
    assert "| too few clusters to say | 40 (7) |" in tables.markdown(tables_studies.repairs(few))
    assert found["split_hash"] == "ab12" and [run["seed"] for run in found["runs"]] == [0, 1, 2]
    assert found["split_options"] == {"data": {"unlabelled": [PHOTOS, FACES], "split_seed": 1}, "tasks": {}}
    assert "| downsample | bundled/photos | back_projection or bicubic | +.030 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": f"{COMMIT}+changes"}, "uncommitted changes"),
        ({"commit": None}, "uncommitted changes"),
        ({"commit": "0" * 40}, "must have the same commit"),
        ({"split_hash": "other"}, "must have the same data.split_hash"),
        ({"config": {"optim": {"steps": 7}}}, "must have the same recipe"),
        ({"status": "interrupted"}, "must be a completed pretraining run"),
        ({"seed": 0}, "more than one run of seed 0"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_run(tmp_path / "first", 0, 0.1)
    second = write_run(tmp_path / "second", changes.pop("seed", 1), 0.1, **changes)
    with pytest.raises(SystemExit, match=said):
        ask(monkeypatch, first, second)


def test_a_folder_without_a_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="not the folder of a finished run"):
        ask(monkeypatch, tmp_path)

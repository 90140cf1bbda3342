"""The record of a run: one writer, lines that survive a crash, a result that is always JSON."""

import json
import os
import platform
from pathlib import Path

import pytest

from vision_mtl.core.console import Console
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "a run", "pretrain", seed=5)
    run.open("stage: pretrain\n")
    yield run
    run.close()


def test_a_folder_holds_config_and_environment(run: Run) -> None:
    assert (run.folder / "config.yaml").read_text() == "stage: pretrain\n"
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["versions"]["torch"] and environment["command"] and environment["device"]


def test_a_second_process_is_refused_until_the_first_ends(run: Run) -> None:
    other = Run(run.folder, "pretrain")
    named = rf"another process is running in .* \(process {os.getpid()} on {platform.node()}, started 20"
    with pytest.raises(UserError, match=named):
        other.open("")
    run.close()
    other.open("again")
    other.close()
    assert not (run.folder / ".holder.json").exists()


def test_records_outlive_a_line_cut_off(run: Run) -> None:
    run.log({"step": 1, "loss": float("nan")})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.records() == [{"step": 1, "loss": None}]


def test_rewind_forgets_what_came_later(run: Run) -> None:
    for step in (1, 5, 10):
        run.log({"step": step})
    run.rewind(5)
    assert [record["step"] for record in run.records()] == [1, 5]


def test_resumes_and_repeated_steps_are_counted_from_the_log(run: Run) -> None:
    """In a folder of an earlier version, whose own file of counts is not read."""
    (run.folder / ".reached.json").write_text('{"step": 990, "resumes": 7, "repeated_steps": 70}')
    assert run.last_step == 0 and run.resumes() == []
    for step in (1, 10, 20):
        run.log({"kind": "train", "step": step})
    run.log({"kind": "validation", "step": 25})
    assert run.last_step == 20 and run.resume_from(15) == 5
    assert [(r["kind"], r["step"]) for r in run.records()] == [("train", 1), ("train", 10), ("resume", 15)]
    run.log({"kind": "train", "step": 20})
    assert run.resume_from(20) == 0 and run.resume_from(8) == 12  # an earlier checkpoint: what was counted stays
    assert [record["step"] for record in run.resumes()] == [15, 20, 8] and run.last_step == 1
    run.log({"kind": "resume", "step": 3, "repeated_steps": 2, "network": "pets"})
    run.write_result("completed")
    assert (run.result()["resumes"], run.result()["repeated_steps"]) == (3, 5 + 0 + 12 + 2)


def test_to_extend_a_run_is_no_resume(run: Run) -> None:
    run.log({"kind": "train", "step": 4})
    run.extend()
    assert run.resume_from(4) == 0 and run.resumes() == []


def test_the_resumes_of_a_runs_parts_are_its_own(run: Run) -> None:
    parts = [run.part(run.folder / name) for name in "ab"]
    for part, steps in zip(parts, ((9, 3), (7,)), strict=True):
        part.folder.mkdir()
        for step in steps:
            part.log({"kind": "train", "step": 10})
            part.resume_from(step)
    run.write_result("completed", parts=parts)
    assert (run.result()["resumes"], run.result()["repeated_steps"]) == (2, 1 + 7 + 3)


def test_result_has_its_keys_and_no_number_that_json_lacks(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.warn("mind this")
    run.warn("mind this")
    run.write_result("completed", metrics={"x": float("inf"), "y": [1.5]}, seconds=2.0, images_seen=10)
    result = run.result()
    assert result["status"] == "completed" and result["seed"] == 5 and result["warnings"] == ["mind this"]
    assert result["metrics"] == {"x": None, "y": [1.5]}
    assert {"stage", "seconds", "images_seen", "images_per_second", "data"} <= result.keys()
    assert capsys.readouterr().err.count("mind this") == 1


def test_a_damaged_result_counts_as_none(run: Run) -> None:
    (run.folder / "result.json").write_text("{")
    assert run.result() is None


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run = Run(tmp_path / "other", "pretrain")
    run.open("x")
    run.log({"step": 1})
    run.write_result("completed")
    assert not run.folder.exists()


def test_a_part_speaks_as_its_run_does_and_keeps_its_own_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", "discover", 3, console=Console("json"))
    part = run.part(run.folder / "fold-a")
    assert (part.folder, part.stage, part.seed) == (tmp_path / "run" / "fold-a", "discover", 3)
    part.warn("few images")
    assert json.loads(capsys.readouterr().err)["event"] == "warning"
    assert part.warnings == ["few images"] and run.warnings == []

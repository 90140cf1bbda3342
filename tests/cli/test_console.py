"""The output of a run in each console mode: the result on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from vision_mtl.cli.command import main
from vision_mtl.cli.next_steps import steps_text
from vision_mtl.config.resolve import resolve
from vision_mtl.config.stage import STAGES
from vision_mtl.core.console import Console
from vision_mtl.core.run import Run
from vision_mtl.recipes import build
from vision_mtl.training.progress import ProgressLine, phase

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def look_at(image_folder: Path, root: Path, tmp_path: Path) -> Any:
    """`--stage data`, which trains nothing; returns the exit code."""

    def run(*words: str) -> int:
        source = ["--tasks.shape.source", f"folder/{image_folder}", "--data.root", str(root), "--image_size", "16"]
        return main(["--stage", "data", *source, "--run_dir", str(tmp_path / "run"), *words])

    return run


def test_a_machine_reads_objects(look_at: Any, tmp_path: Path, capsys: Capture) -> None:
    assert look_at("--console", "json") == 0
    printed = capsys.readouterr()
    (result,) = [json.loads(line) for line in printed.out.splitlines()]
    assert result["event"] == "result" and result["status"] == "completed"
    assert result["run_dir"] == str(tmp_path / "run") and result["data"]["num_images"] == 80
    assert result["look"] == [
        [str(tmp_path / "run/findings.json"), "what is wrong or noteworthy"],
        [str(tmp_path / "run/figures/contact_sheet.png"), "a few training images of each class and source"],
    ]
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert {event["event"] for event in events} <= {"message", "warning", "progress"} and events
    assert look_at("--console", "json") == 0  # completed: the same result again
    assert json.loads(capsys.readouterr().out) == result


def test_people_see_the_result_and_where_to_look(look_at: Any, tmp_path: Path, capsys: Capture) -> None:
    assert look_at("--console", "plain") == 0
    printed = capsys.readouterr()
    assert "80 images" in printed.out and f"results: {tmp_path / 'run'}" in printed.out and "figures" in printed.out
    assert f"data in {tmp_path / 'run'}" in printed.err and "80 images," not in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_quiet_prints_only_the_result(look_at: Any, capsys: Capture) -> None:
    assert look_at("--console", "quiet") == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "80 images" in printed.out


@pytest.mark.parametrize("mode", ["auto", "quiet", "json"])
def test_errors_are_printed_in_every_mode(mode: str, capsys: Capture) -> None:
    assert main(["--stage", "export", "--print_config", "--seed", "x", "--console", mode]) == 2
    printed = capsys.readouterr()
    text = json.loads(printed.err)["text"] if mode == "json" else printed.err
    assert "option seed must be a whole number; found 'x'" in text
    if mode == "json":
        assert json.loads(printed.err)["exit_code"] == 2
        assert json.loads(printed.out) == {"event": "result", "status": "failed", "error": text, "exit_code": 2}
    else:
        assert printed.out == ""


def test_a_machine_reads_objects_after_an_interruption(
    look_at: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(build, "decode_pool", lambda *given, **options: os.kill(os.getpid(), signal.SIGTERM))
    assert look_at("--console", "json") == 130
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["event"] == "result" and result["status"] == "interrupted" and result["exit_code"] == 130
    assert "resumes it" in [json.loads(line) for line in printed.err.splitlines()][-1]["text"]


def test_a_machine_reads_objects_after_a_bug(look_at: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(build, "decode_pool", lambda *given, **options: 1 / 0)
    assert look_at("--console", "json") == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["status"] == "failed" and result["error"] == "ZeroDivisionError: division by zero"
    error = [json.loads(line) for line in printed.err.splitlines()][-1]
    assert error["exit_code"] == 1 and error["traceback"].startswith("Traceback") and "1 / 0" in error["traceback"]
    with pytest.raises(ZeroDivisionError):  # people see it as Python shows it
        look_at()


def test_a_launcher_that_stops_the_other_processes_does_not_hide_the_error(
    look_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """One SIGTERM arrives while the error is raised, another while the result is written."""

    def lost(*given: Any, **options: Any) -> None:
        try:
            raise RuntimeError("[gloo] Connection closed by peer")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    original = Run.write_result

    def interrupted(run: Run, *given: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(run, *given, **options)

    monkeypatch.setattr(build, "decode_pool", lost)
    monkeypatch.setattr(Run, "write_result", interrupted)
    assert look_at() == 2
    assert "error: another process of this run has ended" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_an_unknown_mode_names_the_nearest(capsys: Capture) -> None:
    assert main(["--stage", "export", "--console", "quite"]) == 2
    assert "unknown value of console 'quite'. Did you mean 'quiet'?" in capsys.readouterr().err


def test_warnings_of_other_packages_are_hidden(look_at: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    original = build.decode_pool

    def noisy(*given: Any, **options: Any) -> Any:
        warnings.warn("of no use to the user", UserWarning, stacklevel=1)
        logging.getLogger("some.package").warning("of no use either")
        return original(*given, **options)

    monkeypatch.setattr(build, "decode_pool", noisy)
    monkeypatch.setattr("sys.warnoptions", [])
    assert look_at() == 0
    assert "of no use" not in capsys.readouterr().err


def test_progress_is_an_object_or_a_line_or_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(ProgressLine, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr("vision_mtl.training.progress._repeat", lambda line, over: None)
    lines = {}
    for mode in ("plain", "quiet", "json"):
        ProgressLine(Console.of(mode)).update(0.25, "step 3")
        lines[mode] = capsys.readouterr().err
    assert lines["plain"] == " 25%  step 3\n" and lines["quiet"] == ""
    assert json.loads(lines["json"]) == {"event": "progress", "text": "step 3", "share": 0.25}
    ProgressLine(None).update(0.5, "another process")
    assert capsys.readouterr().err == ""


def test_work_that_reports_nothing_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    printed, seen = [], threading.Event()

    def keep(self: Console, share: float, text: str) -> None:
        printed.append((share, text))
        if len(printed) == 2:
            seen.set()

    monkeypatch.setattr(Console, "progress", keep)
    monkeypatch.setattr(ProgressLine, "PLAIN_SECONDS", 0.05)
    with phase(Console.of("plain"), "scoring repairs") as show:
        show(0.5, "grid_mask")
        assert seen.wait(timeout=20)
    assert printed[-1] == (0.5, "scoring repairs: grid_mask")


def test_a_second_process_prints_nothing(tmp_path: Path, capsys: Capture) -> None:
    run = Run(tmp_path, "data", is_main=False)
    run.say("a")
    run.show("b")
    run.warn("c")
    assert capsys.readouterr() == ("", "") and run.warnings == ["c"] and run.speaker is None


def test_every_stage_lists_its_results(tmp_path: Path) -> None:
    listed = {name for name in STAGES.names() if STAGES.get(name).results or STAGES.get(name).next_commands}
    assert listed == set(STAGES.names()) - {"explore"}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curves.png").write_bytes(b"")
    text = steps_text(resolve("finetune", {}, {}), tmp_path, {})
    assert "figures/curves.png" in text and "tables" not in text

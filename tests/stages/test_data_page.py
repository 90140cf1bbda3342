"""`--stage data` shows every error at once, although training would stop at the first kind of them."""

import json
from pathlib import Path

import pytest

from vision_mtl.cli.command import main


def test_all_errors_are_shown_and_the_other_sources_counted(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], result
) -> None:
    listed = tmp_path / "scores.csv"
    rows = [
        f"{file},{'bad' if number % 2 else number}" for number, file in enumerate(sorted(image_folder.rglob("*.png")))
    ]
    listed.write_text("image,score\n" + "\n".join(rows))
    words = ["--stage", "data", "--data.root", str(tmp_path / "root"), "--image_size", "16"]
    words += ["--tasks.shape.source", f"folder/{image_folder}", "--tasks.lost.source", f"folder/{tmp_path / 'lost'}"]
    words += ["--tasks.score.source", f"csv/{listed}", "--tasks.score.kind", "regression"]
    assert main([*words, "--run_dir", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("2 errors")
    assert "there is no" in shown.out and "must be a finite number" in shown.out
    assert f"folder/{image_folder}" in shown.out  # counted in the tables below
    assert "error: 2 errors in the data:\n1. " in shown.err and "must be a finite number" in shown.err
    severities = [finding["severity"] for finding in json.loads((tmp_path / "run" / "findings.json").read_text())]
    assert severities.count("error") == 2
    assert result(tmp_path / "run")["status"] == "failed"

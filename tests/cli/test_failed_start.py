"""A run that failed before it kept anything may be given other options in the same folder, as its error advises."""

import json
import shutil
from pathlib import Path

import pytest

from vision_mtl.cli.command import main


def test_the_advice_of_an_error_can_be_followed_in_the_same_folder(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "images")
    (next(folder.iterdir()) / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ["--stage", "data", "--tasks.shape.source", f"folder/{folder}", "--image_size", "16"]
    words += ["--data.root", str(tmp_path / "root"), "--run_dir", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--data.skip_unreadable" in capsys.readouterr().err
    assert main([*words, "--data.skip_unreadable"]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"
    assert main(words) == 2  # completed: it is another run
    assert "holds another run" in capsys.readouterr().err


def test_a_failed_run_that_kept_weights_is_not_replaced(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--stage", "data", "--tasks.shape.source", "folder/missing", "--run_dir", str(tmp_path / "run")]
    assert main(words) == 2
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "last.json").write_text("{}")
    assert main([*words, "--tasks.shape.source", f"folder/{image_folder}"]) == 2
    assert "holds another run" in capsys.readouterr().err

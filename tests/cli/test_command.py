"""Words of the command line: options, their values, and the options of the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vision_mtl.cli import command
from vision_mtl.cli.command import main, split_words
from vision_mtl.cli.help import COMMAND
from vision_mtl.config import COMMAND_OPTIONS

Capture = pytest.CaptureFixture[str]


def test_words_are_split_at_options_and_the_last_of_a_repeated_one_counts() -> None:
    words = ["--a.b", "1", "2", "--c=3=4", "--flag", "--c", "5", "-h"]
    assert split_words(words) == {"a.b": ["1", "2"], "c": ["5"], "flag": [], "help": []}


def test_hyphens_mean_underscores_except_in_names() -> None:
    words = ["--run-dir", "a-b", "--image-size=32", "--tasks.my-pets.label-from", "x", "--pretexts.my-own.weight", "1"]
    assert split_words([*words, "--backbone.in-chans", "1"]) == {
        "run_dir": ["a-b"],
        "image_size": ["32"],
        "tasks.my-pets.label_from": ["x"],
        "pretexts.my-own.weight": ["1"],
        "backbone.in_chans": ["1"],
    }


@pytest.mark.parametrize("option", ["--run-dir", "--run_dir"])
def test_a_run_is_made_in_run_dir(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def execute(config: Any, folder: Path, console: Any) -> int:
        folders.append(folder)
        return 0

    monkeypatch.setattr("vision_mtl.cli.execute.execute", execute)
    assert main(["--stage", "pretrain", option, str(tmp_path / "my-run")]) == 0
    assert folders == [tmp_path / "my-run"]


def test_every_option_of_the_command_is_in_the_help() -> None:
    assert {entry.split()[0].removeprefix("--") for entry in COMMAND} == set(COMMAND_OPTIONS)
    assert command.COMMAND_OPTIONS is COMMAND_OPTIONS


@pytest.mark.parametrize("option", ["--config", "--run_dir", "--stage"])
def test_an_option_of_the_command_takes_one_value(option: str, capsys: Capture) -> None:
    assert main(["--stage", "pretrain", option, "a", "b"]) == 2
    assert f"option {option} takes one value; found 'a b'" in capsys.readouterr().err
    assert main(["--stage", "pretrain", option]) == 2
    assert f"option {option} takes one value; found ''" in capsys.readouterr().err

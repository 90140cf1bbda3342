"""`--runtime.tune`: chosen once, kept in the run, remembered for the next; a broken file is passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from vision_mtl.core.errors import UserError
from vision_mtl.stages import tuned as room
from vision_mtl.training.tuning import default_choice

WORDS = ["--optim.steps", "1", "--runtime.tune", "same_precision"]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timing finds that the other optimiser is the fastest; how often it was asked is the length of the list."""
    calls: list[int] = []

    def fake(trainer, runtime):
        calls.append(1)
        start = default_choice(runtime, trainer.model.backbone, "cpu")
        return replace(start, optimiser="foreach", channels_last="off"), 0.25

    monkeypatch.setattr(room, "tune", fake)
    return calls


def chosen(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())["runtime"]["tuned"]


def test_a_choice_is_made_once_kept_and_remembered(train, tmp_path: Path, result, timed, capsys) -> None:
    root = ["--data.root", str(tmp_path / "root")]
    assert train(tmp_path / "run", *root, *WORDS) == 0
    assert chosen(tmp_path / "run")["optimiser"] == "foreach" and len(timed) == 1
    assert result(tmp_path / "run")["runtime"] == chosen(tmp_path / "run")
    assert "channels_last off, optimiser foreach" in capsys.readouterr().err

    (file,) = (tmp_path / "root" / "tuned").iterdir()
    file.unlink()
    assert train(tmp_path / "run", *root, *WORDS[2:], "--optim.steps", "2") == 0  # the same run, extended
    assert len(timed) == 1 and result(tmp_path / "run")["runtime"]["optimiser"] == "foreach"

    assert train(tmp_path / "second", *root, *WORDS) == 0
    assert train(tmp_path / "third", *root, *WORDS) == 0  # as the second
    assert len(timed) == 2 and chosen(tmp_path / "third") == chosen(tmp_path / "run")
    assert "as timed before" in capsys.readouterr().err

    (file,) = (tmp_path / "root" / "tuned").iterdir()
    file.write_text('{"choice": ')
    assert train(tmp_path / "fourth", *root, *WORDS) == 0
    assert len(timed) == 3 and "is passed over and written anew" in result(tmp_path / "fourth")["warnings"][0]
    assert "choice" in file.read_text() and file.read_text().endswith("}\n")


def test_nothing_is_timed_unless_asked(train, tmp_path: Path, result, timed) -> None:
    assert train(tmp_path / "run", "--optim.steps", "1") == 0
    assert not timed and "runtime" not in result(tmp_path / "run") and chosen(tmp_path / "run") == {}


def test_several_processes_are_refused(tmp_path: Path, timed) -> None:
    config = SimpleNamespace(runtime={"tune": "same_precision"})
    trainer = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="times one process, and this run has 2"):
        room.tuned(config, SimpleNamespace(folder=tmp_path), trainer)
    assert not timed

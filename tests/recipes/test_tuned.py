"""`--runtime.tune`: chosen once, kept in the run, remembered for the next; a broken file is passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from vision_mtl.cli.command import split_words
from vision_mtl.config.resolve import RunConfig, resolve
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.recipes import tuned as room
from vision_mtl.training.tuning import default_choice

WORDS = ["--optim.steps", "1", "--runtime.tune", "same_precision"]


class SharedModelLike(nn.Module):
    """As much of a network as a choice is about."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3))


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    def make(root: Path, *words: str) -> RunConfig:
        given = ["--data.root", str(root), *WORDS, *words]
        return resolve("pretrain", {}, split_words(given))

    return make


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timing finds that the other optimiser is the fastest; how often it was asked is the length of the list."""
    calls: list[int] = []

    def fake(trainer, runtime):
        calls.append(1)
        start = default_choice(runtime, trainer.model.backbone, "cpu")
        return replace(start, optimiser="foreach", channels_last=False), 0.25

    monkeypatch.setattr(room, "tune", fake)
    return calls


def chosen(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())["runtime"]["tuned"]


@pytest.mark.slow
def test_a_choice_is_made_once_and_kept_in_the_run(train, tmp_path: Path, result, timed, capsys) -> None:
    root = ["--data.root", str(tmp_path / "root")]
    assert train(tmp_path / "run", *root, *WORDS, task=False) == 0
    kept = chosen(tmp_path / "run")
    assert kept["optimiser"] == "foreach" and result(tmp_path / "run")["runtime"] == kept
    assert "runtime.tune: channels_last False, optimiser foreach" in capsys.readouterr().err

    (file,) = (tmp_path / "root" / "tuned").iterdir()
    file.unlink()
    assert train(tmp_path / "run", *root, *WORDS, "--optim.steps", "2", task=False) == 0  # the same run, extended
    assert result(tmp_path / "run")["runtime"] == kept == chosen(tmp_path / "run") and len(timed) == 1


def test_it_is_remembered_for_the_next_run_and_a_broken_file_is_passed_over(
    make_config, tmp_path: Path, timed, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(room, "rebuilt", lambda trainer, *choice: choice[0])
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=1, device=torch.device("cpu")),
        model=SharedModelLike(),
    )

    def of(name: str, *words: str) -> tuple[Run, object]:
        run = Run(tmp_path / name, "pretrain")
        return run, room.tuned(make_config(tmp_path / "root", *words), run, trainer)

    first, second = of("first")[1], of("second")[1]
    assert first == second and first.optimiser == "foreach" and len(timed) == 1
    assert "as timed before" in capsys.readouterr().err
    of("larger", "--optim.batch_size", "16")
    assert len(timed) == 2  # another batch is another question

    for file in (tmp_path / "root" / "tuned").iterdir():
        file.write_text('{"choice": ')
    run, third = of("third")
    assert third == first and len(timed) == 3 and "is passed over and written anew" in run.warnings[0]
    assert of("fourth")[1] == first and len(timed) == 3

    by_hand = of("by_hand", *(f"--runtime.tuned.{key}={value}" for key, value in first.to_json().items()))[1]
    assert by_hand == first and len(timed) == 3


def test_nothing_is_timed_unless_asked(make_config, tmp_path: Path, timed) -> None:
    config, trainer = make_config(tmp_path / "root", "--runtime.tune", "none"), SimpleNamespace()
    assert room.tuned(config, Run(tmp_path, "pretrain"), trainer) is trainer and not timed


def test_several_processes_are_refused(tmp_path: Path, timed) -> None:
    config = SimpleNamespace(runtime={"tune": "same_precision"})
    trainer = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="times one process, and this run has 2"):
        room.tuned(config, SimpleNamespace(folder=tmp_path), trainer)
    assert not timed

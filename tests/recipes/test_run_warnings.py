"""Every guard is a warning in the log and in the result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vision_mtl.recipes.run_warnings import SEEN, images_seen, warn_of_few, warn_of_starved


def warned(folder: Path, result, text: str) -> list[str]:
    return [warning for warning in result(folder)["warnings"] if text in warning]


@pytest.mark.slow
def test_test_images_that_pretraining_saw_are_counted(
    train, supervise, result, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pretrained on the whole folder as a pile without labels, then tested on a part of it."""
    assert train(tmp_path / "pile", "--data.test_ratio", "0", "--data.val_ratio", "0", task=False) == 0
    assert len(images_seen(str(tmp_path / "pile"))) == 80
    words = ["--init_from", tmp_path / "pile", "--tasks.shape.source", f"folder/{image_folder}"]
    words += ["--data.test_ratio", 0.2, "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "tuned", *words, backbone=False) == 0
    (warning,) = warned(tmp_path / "tuned", result, "its scores are not held out")
    count = result(tmp_path / "tuned")["data"]["tasks"]["shape"]["test"]
    assert warning.startswith(f"{count} of {count} test images of task shape") and warning in capsys.readouterr().err
    # its own training images are fewer, but its ancestor's are not forgotten
    assert np.load(tmp_path / "tuned" / SEEN).shape == (80,)


@pytest.mark.slow
def test_test_images_that_stayed_away_are_not_warned_of(
    train, supervise, result, image_folder: Path, tmp_path: Path
) -> None:
    assert train(tmp_path / "first") == 0
    words = ["--init_from", tmp_path / "first", "--tasks.shape.source", f"folder/{image_folder}", "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "tuned", *words, "--data.val_ratio", 0.1, backbone=False) == 0
    assert not warned(tmp_path / "tuned", result, "not held out")
    other = ["--data.split_seed", 1]
    assert supervise("finetune", tmp_path / "other", *words, *other, backbone=False) == 0
    assert warned(tmp_path / "other", result, "not held out")


@pytest.mark.slow
def test_tasks_with_too_little_are_named(supervise, table_tasks, result, tmp_path: Path) -> None:
    words = [*table_tasks("letter", "size"), "--data.val_ratio", 0.05, "--optim.steps", 1, "--optim.batch_size", 2]
    assert supervise("finetune", tmp_path / "run", *words) == 0
    assert any("letter" in text and "for 3 classes" in text for text in warned(tmp_path / "run", result, "mostly luck"))
    assert warned(tmp_path / "run", result, "its labelled images were seen 0.0")


def test_a_task_without_an_image_in_most_steps_is_named() -> None:
    said: list[str] = []
    pool = SimpleNamespace(targets={"rare": SimpleNamespace(kind="regression")}, indices=lambda *_, **__: range(50))
    for share in (0.05, 0.2):
        feed = SimpleNamespace(images_per_step=8, share=lambda task, share=share: share)
        warn_of_few(SimpleNamespace(warn=said.append), pool, feed, ["rare"])
    assert len(said) == 1 and said[0].startswith("task rare is starved: 0.40 of its labelled images in a step")


def test_seen_once_each_is_enough() -> None:
    said: list[str] = []
    warn_of_starved(SimpleNamespace(warn=said.append), {"a": 1.0, "b": 3.5, "c": 0.994})
    assert said == ["task c is starved: its labelled images were seen 0.99 times each, on average."]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_collapse_is_said(
    train, supervise, table_tasks, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A backbone that gives every image the same features."""
    from vision_mtl.models.backbone import Backbone

    monkeypatch.setattr(Backbone, "embed", lambda self, images: torch.ones(len(images), self.num_features))
    if stage == "pretrain":
        assert train(tmp_path / "run") == 0
    else:
        assert supervise("finetune", tmp_path / "run", *table_tasks("letter")) == 0
    assert warned(tmp_path / "run", result, "the embeddings have collapsed at step")
    monkeypatch.undo()


@pytest.mark.slow
def test_a_healthy_run_is_warned_of_nothing_but_its_size(train, result, tmp_path: Path) -> None:
    assert train(tmp_path / "run") == 0
    assert not [w for w in result(tmp_path / "run")["warnings"] if "collapsed" in w or "blown" in w or "skipped" in w]


@pytest.mark.slow
def test_skipped_steps_stand_in_the_result(train, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vision_mtl.training.repair import PretextObjective

    original, calls = PretextObjective.measure, iter(range(1000))

    def measure(self, *given):
        loss = original(self, *given)
        return loss if next(calls) != 1 else type(loss)({n: v * torch.nan for n, v in loss.losses.items()}, loss.shown)

    monkeypatch.setattr(PretextObjective, "measure", measure)
    assert train(tmp_path / "run", "--optim.non_finite", "skip") == 0
    assert warned(tmp_path / "run", result, "1 of 4 steps were skipped: they became non-finite.")
    assert warned(tmp_path / "run", result, "step 1 was skipped, it became non-finite: loss of: no single one")

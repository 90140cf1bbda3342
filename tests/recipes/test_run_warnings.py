"""Each check adds a warning to the log and to the result."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from vision_mtl.core.run import Run
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.split_files import write_splits
from vision_mtl.recipes.run_warnings import (
    SEEN,
    choosing_tasks,
    images_seen,
    remember_images,
    tell_time_limit,
    warn_about_seen_test_images,
    warn_about_small_tasks,
    warn_about_starved_tasks,
)
from vision_mtl.training.best import ALL
from vision_mtl.training.options import Optim
from vision_mtl.training.step_record import Progress


def warned(folder: Path, result, text: str) -> list[str]:
    return [warning for warning in result(folder)["warnings"] if text in warning]


@pytest.mark.slow
def test_test_images_that_pretraining_saw_are_counted(
    train_unscored, supervise, result, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pretrain on the whole folder without labels, then test on a part of it."""
    assert train_unscored(tmp_path / "pile", "--data.test_ratio", "0", "--data.val_ratio", "0", task=False) == 0
    assert len(images_seen(str(tmp_path / "pile"))) == 80
    words = ["--init_from", tmp_path / "pile", "--tasks.shape.source", f"folder/{image_folder}"]
    words += ["--data.test_ratio", 0.2, "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "tuned", *words, backbone=False) == 0
    (warning,) = warned(tmp_path / "tuned", result, "its scores are not held out")
    count = result(tmp_path / "tuned")["data"]["tasks"]["shape"]["test"]
    assert warning.startswith(f"{count} of {count} test images of task shape") and warning in capsys.readouterr().err
    # it has fewer training images, but its ancestor's count too
    assert np.load(tmp_path / "tuned" / SEEN).shape == (80,)


@pytest.mark.slow
def test_unseen_test_images_give_no_warning(
    train_unscored, supervise, result, image_folder: Path, tmp_path: Path
) -> None:
    assert train_unscored(tmp_path / "first") == 0
    words = ["--init_from", tmp_path / "first", "--tasks.shape.source", f"folder/{image_folder}", "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "tuned", *words, "--data.val_ratio", 0.1, backbone=False) == 0
    assert not warned(tmp_path / "tuned", result, "not held out")
    other = ["--data.split_seed", 1]
    assert supervise("finetune", tmp_path / "other", *words, *other, backbone=False) == 0
    (warning,) = warned(tmp_path / "other", result, "not held out")
    kept = ["--tasks.shape.split", str(tmp_path / "first/splits.csv")]
    assert " ".join(kept) in warning
    assert supervise("finetune", tmp_path / "kept", *words, *other, *kept, backbone=False) == 0
    assert not warned(tmp_path / "kept", result, "not held out")


def test_a_grown_folder_moves_images_unless_its_splits_are_kept(tmp_path: Path, image_folder: Path) -> None:
    """What a run trained on may be drawn for testing when images are added: a warning says what to type."""
    folder = tmp_path / "set"
    shutil.copytree(image_folder, folder)

    def opened(name: str, init_from: str | None = None, **options: object) -> list[str]:
        data = Data(root=str(tmp_path / "root"), val_ratio=0, test_ratio=0.4, **options)
        run = Run(tmp_path / name, "finetune")
        pool = build_pool(data, {"shape": Task(source=f"folder/{folder}")}, image_size=(8, 8))
        write_splits(run.folder / "splits.csv", pool.assigned)
        remember_images(run, pool, pool.indices("train"), None)
        warn_about_seen_test_images(run, pool, init_from)
        return run.warnings

    assert opened("first") == []
    lines = (tmp_path / "first/splits.csv").read_text().splitlines()
    names = [line.split(",")[1] for line in lines if line.endswith(",test")]
    for name in names[::2]:  # the images that were first in line for testing are gone, others follow
        (folder / name).unlink()
    random = np.random.default_rng(5)
    for number in range(4):
        cv2.imwrite(str(folder / "round" / f"new {number}.png"), random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    (warning,) = opened("second", str(tmp_path / "first"))
    assert "were training images of the run" in warning and "--data.split_file" in warning
    assert f"--tasks.shape.split {tmp_path}/first/splits.csv" in warning
    assert opened("third", str(tmp_path / "first"), split_file=str(tmp_path / "first/splits.csv")) == []


@pytest.mark.slow
def test_tasks_with_few_images_are_named(supervise, table_tasks, result, tmp_path: Path) -> None:
    words = [*table_tasks("letter", "size"), "--data.val_ratio", 0.05, "--optim.steps", 1, "--optim.batch_size", 2]
    assert supervise("finetune", tmp_path / "run", *words) == 0
    assert any(
        "letter" in text and "for 3 classes" in text for text in warned(tmp_path / "run", result, "too few to choose")
    )
    assert warned(tmp_path / "run", result, "its labelled images were seen 0.0")


def test_a_task_without_an_image_in_most_steps_is_named() -> None:
    said: list[str] = []
    pool = SimpleNamespace(targets={"rare": SimpleNamespace(kind="regression")}, indices=lambda *_, **__: range(50))
    for share in (0.05, 0.2):
        feed = SimpleNamespace(images_per_step=8, share=lambda task, share=share: share)
        warn_about_small_tasks(SimpleNamespace(warn=said.append), pool, feed, ["rare"], ["rare"])
    assert len(said) == 1 and said[0].startswith("task rare is starved: 0.40 of its labelled images per step")


def test_all_tasks_choose_together_or_not_at_all() -> None:
    """`seen` has five validation images, enough for a kind without classes, and too few for two."""
    kinds = {"seen": "dense", "letter": "single_label"}
    targets = {name: SimpleNamespace(kind=kind, class_names=["a", "b"]) for name, kind in kinds.items()}
    for count, expected in {5: ["seen"], 9: ["seen"], 10: ["seen", "letter", ALL]}.items():
        pool = SimpleNamespace(targets=targets, indices=lambda *_, count=count, **__: range(count))
        assert choosing_tasks(pool, list(kinds)) == expected


def test_seen_once_each_is_enough() -> None:
    said: list[str] = []
    warn_about_starved_tasks(SimpleNamespace(warn=said.append), {"a": 1.0, "b": 3.5, "c": 0.994})
    assert said == ["task c is starved: its labelled images were seen 0.99 times each, on average."]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_collapse_is_a_warning(
    train_unscored, supervise, table_tasks, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The backbone gives every image the same features."""
    from vision_mtl.models.backbone import Backbone

    monkeypatch.setattr(Backbone, "embed", lambda self, images: torch.ones(len(images), self.num_features))
    if stage == "pretrain":
        assert train_unscored(tmp_path / "run", "--track.num_probes", "1") == 0
    else:
        assert supervise("finetune", tmp_path / "run", *table_tasks("letter")) == 0
    assert warned(tmp_path / "run", result, "the embeddings have collapsed at step")
    monkeypatch.undo()


@pytest.mark.slow
def test_a_healthy_run_is_warned_of_nothing_but_its_size(train_unscored, result, tmp_path: Path) -> None:
    assert train_unscored(tmp_path / "run") == 0
    assert not [w for w in result(tmp_path / "run")["warnings"] if "collapsed" in w or "blown" in w or "skipped" in w]


@pytest.mark.slow
def test_skipped_steps_are_in_the_result(
    train_unscored, result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_mtl.training.repair import PretextObjective

    original, calls = PretextObjective.measure, iter(range(1000))

    def measure(self, *given):
        loss = original(self, *given)
        return loss if next(calls) != 1 else type(loss)({n: v * torch.nan for n, v in loss.losses.items()}, loss.shown)

    monkeypatch.setattr(PretextObjective, "measure", measure)
    assert train_unscored(tmp_path / "run", "--optim.non_finite", "skip") == 0
    assert warned(tmp_path / "run", result, "1 of 4 steps were skipped: they became non-finite.")
    assert warned(tmp_path / "run", result, "step 1 was skipped because it became non-finite: loss of: no single one")


def test_a_time_limit_that_ended_training_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, "pretrain", 0)
    optim = Optim(steps=10, max_seconds=5.0, batch_size=8)
    tell_time_limit(run, optim, Progress(step=10, images_seen=80, seconds=4.0))
    tell_time_limit(run, Optim(steps=None, max_seconds=5.0), Progress(step=7, images_seen=56, seconds=5.1))
    assert run.warnings == []
    tell_time_limit(run, optim, Progress(step=7, images_seen=56, seconds=5.1))
    assert "ended training after 5 s, at 56 of 80 images" in run.warnings[0]

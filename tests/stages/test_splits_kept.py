"""A run resumes with the splits that it began with, also when its folder has grown since."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import vision_mtl as vm
from vision_mtl.cli.command import main


def rows(run: Path) -> dict[str, str]:
    lines = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()[1:]]
    return {image: split for _, image, split in lines}


@pytest.mark.slow
def test_a_resumed_and_a_loaded_run_keep_their_splits(
    tmp_path: Path, image_folder: Path, train_unscored, root: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(image_folder, folder)
    task = ["--tasks.shape.source", f"folder/{folder}"]
    assert train_unscored(tmp_path / "run", *task) == 0
    before = rows(tmp_path / "run")
    random = np.random.default_rng(5)
    for number in range(50):
        cv2.imwrite(str(folder / "round" / f"new {number}.png"), random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    assert train_unscored(tmp_path / "run", *task, "--optim.steps", "6") == 0  # extended: it resumes
    after = rows(tmp_path / "run")
    assert {image: after[image] for image in before} == before
    new = [split for image, split in after.items() if image not in before]
    assert [new.count(split) for split in ("train", "val", "test")] == [35, 5, 10]
    pool = vm.load_run(tmp_path / "run", device="cpu").pool
    assert sorted(f"folder/{folder}::{i}" for i, split in after.items() if split == "test") == sorted(
        pool.identities[row] for row in pool.indices("test")
    )


def test_the_data_stage_writes_the_splits(tmp_path: Path, image_folder: Path, root: Path) -> None:
    words = ["--stage", "data", "--tasks.shape.source", f"folder/{image_folder}", "--image_size", "32"]
    words += ["--data.root", str(root), "--run_dir", str(tmp_path / "run"), "--console", "quiet"]
    assert main(words) == 0
    counts = [list(rows(tmp_path / "run").values()).count(split) for split in ("train", "val", "test")]
    assert counts == [56, 8, 16]

"""The command as a user gives it, on images and a backbone that are small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_mtl.stages.command import main

Command = Callable[..., int]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 40 colourful pictures."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(80):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        file = folder / ("round" if number % 2 else "square") / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        coarse.resize((40, 40), Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST).save(file)
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def train(image_folder: Path, root: Path) -> Command:
    """`--stage pretrain` with few steps; words given later win."""

    def run(folder: Path, *words: str, task: bool = True) -> int:
        options = {
            "stage": "pretrain",
            "run_dir": folder,
            "data.root": root,
            "image_size": 32,
            "backbone.name": "resnet10t",
            "optim.steps": 4,
            "optim.batch_size": 8,
            "device": "cpu",
        }
        options |= (
            {"tasks.shape.source": f"folder/{image_folder}"} if task else {"data.unlabelled": f"images/{image_folder}"}
        )
        return main([word for key, value in options.items() for word in (f"--{key}", str(value))] + list(words))

    return run


@pytest.fixture
def result() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / "result.json").read_text())

"""Imported by pytest before any test file, so that the package comes before timm and torchvision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import vision_mtl  # noqa: F401, first
from vision_mtl.config.resolve import resolve
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.recipes import build
from vision_mtl.training.checkpoint import save_weights

pytest_plugins = ["command_fixtures"]  # the command as a user gives it, on small images


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files whose tests are slow, so that at the end no core waits long for another."""
    total = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path] / total[item.path])  # stable: a file's tests stay together


ANSWERS = {
    "shape": TaskHeadSpec("single_label", 3),
    "tags": TaskHeadSpec("multi_label", 3),
    "age": TaskHeadSpec("regression", 1, offset=40.0, scale=10.0),
    "layout": TaskHeadSpec("dense", 3),
}
CLASS_NAMES = {
    "shape": ["flat", "round", "square"],
    "tags": ["big", "old", "red"],
    "age": [],
    "layout": ["0", "7", "200"],
}


@pytest.fixture(scope="session")
def many_headed() -> Callable[..., Path]:
    """Writes a run folder with a head of every kind (or of some tasks), whose answers differ from image to image."""

    def write(
        folder: Path,
        *,
        backbone: str = "test_resnet",
        kwargs: dict[str, Any] | None = None,
        size: str = "32,48",
        tasks: tuple[str, ...] = tuple(ANSWERS),
        fit: str = "stretch",
        chans: int = 3,
    ) -> Path:
        options = {t: {"source": "folder/private/place", "kind": ANSWERS[t].kind} for t in tasks}
        file = {
            "image_size": size,
            "backbone": {"name": backbone, "kwargs": kwargs or {}, "in_chans": chans},
            "data": {"fit": fit},
        }
        config = resolve("finetune", file | ({"tasks": options} if tasks else {}), {})
        config = config if tasks else replace(config, tasks={})
        torch.manual_seed(0)
        model = build.build_model(config, {}, {t: ANSWERS[t] for t in tasks}).eval()
        for task in tasks:
            torch.nn.init.normal_(model.task_head(task).project.weight, std=0.3)
            torch.nn.init.normal_(model.task_head(task).project.bias)
            if hasattr(model.task_head(task), "temperature"):
                model.task_head(task).temperature.fill_(1.7)
        names = SimpleNamespace(class_names={t: CLASS_NAMES[t] for t in tasks}, details={})
        state = build.describe_model(config, model, names) | {"step": 3}
        save_weights(folder / "checkpoints" / "best.safetensors", state, model.state_dict())
        return folder

    return write


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 JPEG files of two classes, in a folder each, more than twice as large as streams are tested at (32 pixels)."""
    folder, random = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(0)
    for number in range(40):
        file = folder / "ab"[number % 2] / f"{number:02d}.jpg"
        file.parent.mkdir(exist_ok=True)
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(file), cv2.resize(coarse, (72, 72), interpolation=cv2.INTER_CUBIC))
    return folder

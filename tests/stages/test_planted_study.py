"""A study with a known result: only coloured, unlabelled images show what the grey, labelled ones are.

Each picture shows one of four shapes in noise. In the pile of unlabelled pictures its colour is a function of the
shape; the labelled ones are grey. So who learns to colour the pile learns to tell the shapes. The saboteur's
pretraining has a learning rate a hundred times too high: its weights are so large that finetuning hardly moves them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from joblib.externals.loky import get_reusable_executor

from vision_mtl.cli.command import main

pytestmark = pytest.mark.slow  # a study of planted images

SIDE = 32
COLOURS = {"circle": (220, 60, 60), "square": (60, 200, 60), "cross": (70, 90, 230), "ring": (220, 200, 40)}


def shape_mask(random: np.random.Generator, shape: str) -> np.ndarray:
    """Return (32, 32) float32 in {0, 1}: the shape at a random position and size."""
    mask = np.zeros((SIDE, SIDE), np.float32)
    radius = int(random.integers(6, 10))
    y, x = (int(v) for v in random.integers(radius + 1, SIDE - radius - 1, 2))
    if shape in ("circle", "ring"):
        cv2.circle(mask, (x, y), radius, 1, -1 if shape == "circle" else 3)
    elif shape == "square":
        cv2.rectangle(mask, (x - radius + 1, y - radius + 1), (x + radius - 1, y + radius - 1), 1, -1)
    else:
        cv2.line(mask, (x - radius, y), (x + radius, y), 1, 4)
        cv2.line(mask, (x, y - radius), (x, y + radius), 1, 4)
    return mask


def picture(random: np.random.Generator, shape: str, coloured: bool) -> np.ndarray:
    """Return (32, 32, 3) uint8 RGB; all shapes are equally bright, so grey images do not show the colour."""
    mask, colour = shape_mask(random, shape)[..., None], np.array(COLOURS[shape], np.float32)
    ink = colour * 150 / (colour @ (0.299, 0.587, 0.114)) if coloured else np.full(3, 150.0)
    ground = random.uniform(20, 90) + random.normal(0, 18, (SIDE, SIDE, 1))
    return (mask * ink * random.uniform(0.5, 1) + (1 - mask) * ground).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 400 coloured pictures to `pile`, and 400 grey ones to `task`, in a folder per shape."""
    folder, random = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    for number in range(800):
        shape, coloured = list(COLOURS)[number % 4], number < 400
        file = folder / ("pile" if coloured else f"task/{shape}") / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), picture(random, shape, coloured)[..., ::-1])
    return folder


def test_helping_and_hurting_arms_are_found(
    images: Path, tmp_path: Path, result, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_reusable_executor().shutdown(wait=True)  # workers of an earlier test have another working directory
    monkeypatch.chdir(images)  # splits go by names, and a temporary folder's is another each time
    rate = {"learning_rate": 0.05}
    config: dict[str, Any] = {
        "stage": "study",
        "image_size": SIDE,
        "device": "cpu",
        "backbone": {"name": "test_resnet"},
        "tasks": {"shape": {"source": "folder/task", "augment": "none"}},
        "data": {"unlabelled": ["images/pile"], "root": str(tmp_path / "root"), "test_ratio": 0.5},
        "study": {
            "seeds": [0, 1, 2, 3],
            "fractions": [1.0],
            "options": {
                "pretrain": {"optim": {"steps": 300, "batch_size": 32} | rate, "pretexts": {"decolorise": None}},
                "finetune": {"optim": {"steps": 120, "batch_size": 16} | rate},
            },
            "arms": {
                "labelled_only": ["finetune"],
                "pretrained": ["pretrain", "finetune"],
                "sabotaged": {"extends": "pretrained", "pretrain": {"optim": {"steps": 40, "learning_rate": 5.0}}},
                "control": {"stages": ["finetune"], "seed_offset": 50},
            },
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["--config", str(tmp_path / "study.yaml"), "--run_dir", str(tmp_path / "run")]) == 0
    rows = {row["arm"]: row for row in result(tmp_path / "run")["metrics"]["comparisons"]}
    verdicts = {arm: row["verdict"] for arm, row in rows.items()}
    assert verdicts == {"pretrained": "helps", "sabotaged": "hurts", "control": "undecided"}
    assert rows["pretrained"]["difference"]["low"] > 0 > rows["sabotaged"]["difference"]["high"]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "above labelled_only: helps" in report and "below labelled_only: hurts" in report

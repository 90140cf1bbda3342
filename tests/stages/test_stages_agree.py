"""`pretrain` and `discover` agree: nothing is learned for one and hopeless for the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_mtl.cli.command import main

pytestmark = pytest.mark.slow  # two whole runs for each set of images

OPTIONS = {
    "backbone.name": "test_resnet",
    "decoder.shallow": "all",
    "optim.batch_size": 32,
    "optim.learning_rate": 0.016,
    "pretexts.contrast.weight": 0,
    "runtime.precision": "fp32",
    "runtime.num_threads": 1,
    "track.tensorboard": "false",
    "device": "cpu",
}
SIDE, CELL = 16, 8


def run(folder: Path, stage: str, options: dict[str, Any]) -> dict[str, Any]:
    given = {"stage": stage, "run_dir": folder / stage, "data.root": folder / "root", **OPTIONS, **options}
    assert main([word for key, value in given.items() for word in (f"--{key}", *str(value).split())]) == 0
    return json.loads((folder / stage / "result.json").read_text())["metrics"]


def verdicts(folder: Path, options: dict[str, Any]) -> dict[str, dict[tuple[str, str], bool]]:
    """Stage -> (images, pretext) -> learned."""
    found = {}
    for stage, more in (("pretrain", {}), ("discover", {"discover.num_images": 100, "discover.num_scorings": 0})):
        metrics = run(folder, stage, options | more)
        by_source = {"all": metrics["skill_learned"], **metrics["skill_learned_by_source"]}
        found[stage] = {(s, p): score["learned"] for s, scores in by_source.items() for p, score in scores.items()}
    assert found["pretrain"].keys() == found["discover"].keys()
    return found


def planted(random: np.random.Generator, number: int) -> np.ndarray:
    """An image in levels of 255: stripes in one of four directions in two cells, noise in the other two.

    The noise is grey, the stripes are orange or blue by their direction: cells and colours can be learned.
    """
    y, x = np.mgrid[:CELL, :CELL]
    stripes = np.where([x % 4 < 2, y % 4 < 2, (x + y) % 4 < 2, (x - y) % 4 < 2][number % 4], 40.0, -40.0)
    image = np.full((SIDE, SIDE, 3), 140.0)
    tint = np.array([37, -7, -61]) * (1 if number % 4 < 2 else -1)
    image[:CELL] += np.concatenate([stripes, stripes[:, ::-1]], 1)[..., None] + tint
    image[CELL:] = random.integers(50, 200, (CELL, SIDE, 1))
    return image


def write(images: list[np.ndarray], folder: Path) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return f"images/{folder}"


def test_planted_structure_is_learned_in_both_and_noise_in_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    structured = write([planted(random, number) for number in range(600)], tmp_path / "structured")
    noise = write([random.integers(256, size=(SIDE, SIDE, 3)) for _ in range(200)], tmp_path / "noise")
    options = {"data.unlabelled": f"{structured} {noise}", "image_size": SIDE, "pretexts.grid_mask.grid": 2}
    found = verdicts(tmp_path, options | {"pretexts.downsample.weight": 0, "optim.steps": 300})
    for stage in found.values():
        assert stage[structured, "grid_mask"] and stage[structured, "decolorise"]
        assert not stage[noise, "grid_mask"] and not stage[noise, "decolorise"]
    assert found["pretrain"] == found["discover"]


def test_the_default_images(tmp_path: Path) -> None:
    options = {"data.unlabelled": "bundled/photos bundled/digits", "image_size": 32, "optim.steps": 40}
    # the defaults of discover are finer
    found = verdicts(tmp_path, options | {"pretexts.grid_mask.grid": 4, "pretexts.downsample.factor": 4})
    assert found["pretrain"] == found["discover"]

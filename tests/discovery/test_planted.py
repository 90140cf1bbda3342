"""Planted truth: images in which it is known what can be repaired. Discovery must name each part rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_mtl.cli.command import main

pytestmark = pytest.mark.slow  # whole discoveries of planted images

HEIGHT, WIDTH, CELL = 16, 32, 8  # a grid of 2 x 4 cells
COUNT = 800  # images of a class
ORANGE = np.array([37, -7, -61])  # of luma 0 (Rec. 601): the grey image does not show it at all


def pattern(number: int) -> np.ndarray:
    """(8, 8) of -1 and 1 whose mean over any 4 x 4 block is 0: a linear rule on reduced images cannot see it."""
    y, x = np.mgrid[:CELL, :CELL]
    stripes = [v % 4 < 2 for v in (x, y, x + y, x - y)]
    fine = [(x + y) % 2 < 1, (x // 2 + y // 2) % 2 < 1, x % 2 < 1, y % 2 < 1]
    return np.where([*stripes, *fine][number], 1.0, -1.0)


def planted(bound: bool, random: np.random.Generator) -> np.ndarray:
    """Levels of 255. r0c0 is independent noise, r0c3 constant, r1c1 holds a pattern.

    If `bound`, the pattern is one of four stripes, r1c2 is its mirror image, and both are orange for two of the stripes
    and blue for the other two. Else r1c1 and r1c2 hold two of four other patterns, and a coin decides on the colour.
    """
    image = np.full((HEIGHT, WIDTH, 3), 140.0)
    image[:CELL, :CELL] = random.integers(50, 200, (CELL, CELL, 1))
    image[:CELL, 3 * CELL :] = 50
    first, other = random.integers(4, size=2) + (0 if bound else 4)
    both = np.concatenate([pattern(first), pattern(first if bound else other)[:, ::-1]], 1)
    is_orange = first < 2 if bound else random.integers(2)
    image[CELL:, CELL : 3 * CELL] += 40 * both[..., None] + (ORANGE if is_orange else -ORANGE)
    return image


def write(images: list[np.ndarray], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:03d}.png")


def discover(folder: Path, *words: str) -> dict[str, Any]:
    options = {
        "stage": "discover",
        "run_dir": folder / "run",
        "data.root": folder / "root",
        "image_size": f"{HEIGHT},{WIDTH}",
        "backbone.name": "test_resnet",
        "decoder.shallow": "all",
        "pretexts.grid_mask.grid": "2x4",
        "pretexts.grid_mask.weight": 3,
        "optim.batch_size": 32,
        "optim.learning_rate": 0.016,
        "runtime.precision": "fp32",
        "runtime.num_threads": 1,
        "track.tensorboard": "false",
        "device": "cpu",
    }
    assert main([word for key, value in options.items() for word in (f"--{key}", str(value))] + list(words)) == 0
    return json.loads((folder / "run" / "result.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, random = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    for name in ("bound", "free"):
        write([planted(name == "bound", random) for _ in range(COUNT)], folder / "images" / name)
    words = ["--tasks.structure.source", f"folder/{folder / 'images'}", "--pretexts.downsample.weight", "0"]
    return discover(folder, *words, "--optim.steps", "400", "--discover.num_images", "200")


def test_each_cell_is_named_rightly(found: dict[str, Any]) -> None:
    cells = {name: verdict["kind"] for name, verdict in found["kinds"]["grid_mask"].items()}
    assert cells["2x4/r0c0"] == "hopeless" and cells["2x4/r0c3"] == "trivial"
    assert cells["2x4/r1c1"] == cells["2x4/r1c2"] == "learnable"


def test_only_the_class_that_carries_the_structure_is_learnable(found: dict[str, Any]) -> None:
    kinds = {name: {p: v["kind"] for p, v in own.items()} for name, own in found["kinds_by_class"]["structure"].items()}
    assert kinds["bound"] == {"grid_mask": "learnable", "decolorise": "learnable"}
    assert kinds["free"] == {"grid_mask": "hopeless", "decolorise": "hopeless"}


def test_intervals_agree_with_the_names(found: dict[str, Any]) -> None:
    bound, free = (found["kinds_by_class"]["structure"][name] for name in ("bound", "free"))
    for pretext in ("grid_mask", "decolorise"):
        assert bound[pretext]["skill"]["low"] > 0.05 and free[pretext]["skill"]["low"] < 0
    for verdict in found["kinds"]["grid_mask"].values():
        assert verdict["kind"] != "learnable" or verdict["skill"]["low"] > 0
        assert verdict["reference"]


def test_noise_has_nothing_to_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    write([random.integers(256, size=(HEIGHT, WIDTH, 3)) for _ in range(100)], tmp_path / "images")
    words = ["--data.unlabelled", f"images/{tmp_path / 'images'}", "--pretexts.downsample.factor", "2", "4"]
    metrics = discover(tmp_path, *words, "--optim.steps", "60", "--discover.num_images", "60")
    kinds = {(p, d): v["kind"] for p, own in metrics["kinds"].items() for d, v in own.items()}
    assert set(kinds.values()) == {"hopeless"} and len(kinds) == 8 + 1 + 2
    assert all(score["value"] < 0.01 for score in metrics["skill"].values())


def in_a_row(image: np.ndarray) -> np.ndarray:
    """(8, 32, 3): the noise, the constant, the pattern and its mirror image."""
    upper, lower = image[:CELL], image[CELL:]
    return np.concatenate([upper[:, :CELL], upper[:, 3 * CELL :], lower[:, CELL : 3 * CELL]], 1)


def test_what_is_still_being_learned_is_drawn_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise's mean and the constant are learned at once, the patterns for as long as training lasts."""
    monkeypatch.chdir(tmp_path)  # splits follow the source's name: the same at every call
    random = np.random.default_rng(2)
    write([in_a_row(planted(True, random)) for _ in range(400)], Path("images"))
    words = ["--data.unlabelled", "images/images", "--image_size", f"{CELL},{WIDTH}"]
    words += ["--pretexts.grid_mask.grid", "1x4", "--pretexts.decolorise.weight", "0"]
    words += ["--pretexts.downsample.weight", "0", "--optim.steps", "240", "--discover.online", "true"]
    metrics = discover(Path("."), *words)
    weights = np.array([row["weight"] for row in metrics["skill_over_time"]]).reshape(-1, 4)
    noise, constant, patterns = weights[:, 0], weights[:, 1], weights[:, 2:].mean(1)
    assert patterns[-10:].mean() > 1.15 and patterns[-1] > 1.15
    assert noise[-5:].max() < 0.7 and constant[-1] < 1.0
    assert noise[-1] < noise[-5] < noise[-10]

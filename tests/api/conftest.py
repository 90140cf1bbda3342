"""Two small trained runs: one that repairs, by every pretext, and one with heads of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vision_mtl
from vision_mtl.api.loaded_run import LoadedRun
from vision_mtl.cli.command import main
from vision_mtl.pretext.contract import PRETEXTS


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve colourful pictures of several sizes."""
    folder = tmp_path_factory.mktemp("photos", numbered=False)
    random = np.random.default_rng(0)
    for number in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((40 + number, 36), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> LoadedRun:
    """A network that has taken three steps of every pretext."""
    folder = tmp_path_factory.mktemp("run") / "pretrained"
    words = ["--stage", "pretrain", "--run_dir", folder, "--data.root", folder.parent / "data", "--device", "cpu"]
    words += ["--image_size", 32, "--backbone.name", "test_resnet", "--optim.steps", 3, "--optim.batch_size", 8]
    words += ["--data.unlabelled", f"images/{photos.name}", "--data.val_ratio", 0.2, "--data.test_ratio", 0.3]
    words += [word for name in PRETEXTS.names() for word in (f"--pretexts.{name}.weight", 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(photos.parent)  # sides are drawn from the source as it is given
        assert main([str(word) for word in words]) == 0
    return vision_mtl.load_run(folder, device="cpu")

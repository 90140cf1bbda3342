"""Small image files with known content, written by other libraries than the one that reads them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Picture = Callable[..., np.ndarray]


@pytest.fixture
def picture() -> Picture:
    """Return a function from a number to (H, W, 3) uint8: smooth for JPEG, with four different corners."""

    def make(number: int = 0, height: int = 40, width: int = 60) -> np.ndarray:
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def photo_folder(tmp_path: Path, picture: Picture) -> Path:
    """A folder with two classes of 12 PNG files, names with spaces and Unicode, and files that are not images."""
    folder = tmp_path / "my phötos"
    for number in range(24):
        file = folder / ("cats" if number < 12 else "dögs") / f"image {number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(file)
    (folder / "notes.txt").write_text("not an image")
    (folder / "cats" / "labels.csv").write_text("a,b\n1,2\n")
    (folder / ".hidden.png").write_bytes(b"not looked at")
    return folder

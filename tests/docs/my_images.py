"""The images of a stranger, as README's commands name them: `MY/PETS`, `MY/PHOTOS`, `MY/NEW` and so on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("red cats", "grüne Hunde", "BLUE_BIRDS")  # a folder each: spaces, Unicode, capitals
ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG")
HUES = ((190, 60, 50), (60, 170, 70), (50, 80, 190))


def write_images(folder: Path, *, num_images: int = 60, side: int = 40) -> None:
    """Three classes of `num_images` JPEG files with odd names, one of them broken; photos; a table; another set."""
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for index in range(num_images):
            ending = ENDINGS[index % len(ENDINGS)]
            file = folder / "PETS" / name / f"IMG ({index}) é.final.v{index % 3}{ending}"
            _save(file, _picture(random, number, side))
    broken = folder / "PETS" / CLASSES[0] / "broken ☹.jpg"
    broken.write_bytes(broken.with_name(f"IMG (0) é.final.v0{ENDINGS[0]}").read_bytes()[:300])
    for index in range(num_images):
        _save(folder / "PHOTOS" / f"{index // 20}" / f"photo {index}.jpg", _picture(random, index % 3, side))
    for index in range(9):
        _save(folder / "NEW" / f"what is this {index}?.JPG", _picture(random, index % 3, side))
    lines = ["file,age"]
    for index in range(num_images):
        _save(folder / "people" / f"{index}.jpg", _picture(random, index % 3, side))
        lines.append(f"people/{index}.jpg,{20 + index % 40}")
    (folder / "ages.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for index in range(num_images):
        _save(folder / "MORE" / ("dark", "light")[index % 2] / f"{index}.jpg", _picture(random, index % 3, side))


def _picture(random: np.random.Generator, number: int, side: int) -> np.ndarray:
    """(side, side, 3) uint8: blotches around a hue, so that there is something to learn."""
    coarse = random.normal(HUES[number], 45, (5, 5, 3)).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def _save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, "JPEG", quality=92)

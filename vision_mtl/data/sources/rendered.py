"""`rendered/cars|faces|pets`: procedural images, drawn with OpenCV from a seed. They are not photographs.

Eight body types of vehicles, twelve people, three animals. Colours, parts, light and place belong together as in the
world, so that there is something to learn without labels. They do not tell the class: only shapes and parts do
(`benchmarks/rendered.py` measures both).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np

from vision_mtl.core.errors import unknown
from vision_mtl.data.source import SOURCES, Item

IMAGES_PER_CLASS = {"cars": 400, "faces": 300, "pets": 600}
DRAWING_SEED = 1


@SOURCES.register("rendered")
class Rendered:
    """One of the rendered sets; an image depends only on its class and number.

    Raises `UserError` for an unknown name.
    """

    version = "4"
    in_processes = True  # many small steps in Python: two threads would take half as long again

    def __init__(self, rest: str, root: Path) -> None:
        if rest not in IMAGES_PER_CLASS:
            raise unknown("rendered set", rest, IMAGES_PER_CLASS)
        self.rest = rest

    def items(self) -> list[Item]:
        count = IMAGES_PER_CLASS[self.rest]
        return [
            Item(f"{label}/{i:04d}", labels={"label": label}) for label in self._drawing.CLASSES for i in range(count)
        ]

    def read(self, item: Item) -> np.ndarray:
        label, number = item.identity.split("/")
        seed = [DRAWING_SEED, self._drawing.CLASSES.index(label), int(number), *self.rest.encode()]
        return self._drawing.draw(label, np.random.default_rng(seed))

    @property
    def _drawing(self) -> ModuleType:
        return importlib.import_module(f"vision_mtl.data.rendering.{self.rest}")

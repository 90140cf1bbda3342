"""`images/PATH_OR_GLOB`: image files without labels, found recursively."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision_mtl.data.decode import decode_bytes, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.source import SOURCES, Item


@SOURCES.register("images")
class Images:
    """Every image file below a folder, or that a glob (with `**`) matches. Identities are relative paths."""

    version = "1"

    def __init__(self, rest: str, root: Path) -> None:
        self.rest = rest

    def items(self) -> list[Item]:
        base, files = find_images(self.rest)
        return [Item(identity=file.relative_to(base).as_posix(), path=file.resolve()) for file in files]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)

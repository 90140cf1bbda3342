"""`images/PATH_OR_GLOB`: image files without labels, found recursively."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision_mtl.data.decode import decode_bytes, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.findings import Finding
from vision_mtl.data.skipped import skipped_findings
from vision_mtl.data.source import SOURCES, Item


@SOURCES.register("images")
class Images:
    """All image files below a folder, or that a glob (with `**`) matches; identities are relative paths."""

    version = "1"

    def __init__(self, rest: str, root: Path) -> None:
        self.rest = rest
        self.findings: list[Finding] = []

    def items(self) -> list[Item]:
        found = find_images(self.rest)
        self.findings = skipped_findings(f"images/{self.rest}", found.walk)
        return [Item(identity=name, path=file) for name, file in zip(found.names, found.files, strict=True)]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)

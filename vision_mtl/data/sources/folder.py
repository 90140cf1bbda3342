"""`folder/PATH`: one folder per class, or a flat folder with labels from a regular expression on the paths.

`PATH/CLASS/**/image` gives the label CLASS. `PATH/train/CLASS/**/image` and `PATH/test/CLASS/**/image` also give the
split; `data.layout` lists the layouts that are recognised. Files without an image suffix are skipped and counted.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from vision_mtl.data.decode import decode_bytes, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.findings import Finding
from vision_mtl.data.layout import Layout, Place, read_layout
from vision_mtl.data.skipped import counted, skipped_findings
from vision_mtl.data.source import SOURCES, Item
from vision_mtl.data.walk import Walk


@SOURCES.register("folder")
class Folder:
    """Images in class folders, with label column `label`; files directly in PATH have no label.

    `unclear` is a finding about folders that may be splits or classes: an error for tasks that need to know.
    """

    version = "1"

    def __init__(self, rest: str, root: Path) -> None:
        self.rest = rest
        self.findings: list[Finding] = []
        self.unclear: Finding | None = None

    def items(self) -> list[Item]:
        found, where = find_images(self.rest), f"folder/{self.rest}"
        again = list(found.walk.other_names())
        images = Counter(_folders(file) for file in found.names)
        images.update(_folders(file) for file, _ in again)
        layout = read_layout(where, images)
        places = {folders: layout.place(folders) for folders in images}
        # a folder under a second name is left out, unless that name says something else: then its labels conflict
        others = [file for file, known in again if places[_folders(file)] != places[_folders(known)]]
        self.findings = [*skipped_findings(where, found.walk), *layout.findings, *_empty(where, found.walk, layout)]
        self.unclear = layout.unclear
        return [_item(file, found.base / file, places[_folders(file)]) for file in sorted([*found.names, *others])]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)


def _folders(file: str) -> tuple[str, ...]:
    return tuple(file.split("/")[:-1])


def _item(file: str, path: Path, place: Place) -> Item:
    labels = {} if place.label is None else {"label": place.label}
    return Item(identity=file, path=path, labels=labels, split=place.split, beside=place.beside)


def _empty(where: str, found: Walk, layout: Layout) -> list[Finding]:
    """Return a warning for each class, of a split, that has a folder and no readable image."""
    holding = {_folders(file)[:depth] for file in found.files for depth in range(file.count("/") + 1)}
    held = {layout.place(folders) for folders in holding}
    if not any(place.label for place in held):
        return []
    empty: dict[Place, Counter[str]] = {}
    for folder in found.folders:
        folders = tuple(folder.split("/"))
        place = layout.place(folders)
        if folders not in holding and place.label is not None and place not in held:
            suffixes = {suffix: count for (other, suffix), count in found.skipped.items() if other == folder}
            empty.setdefault(place, Counter()).update(suffixes)
    findings = []
    for place, suffixes in empty.items():
        split = "" if place.split is None else f" ({place.split})"
        contents = f"files: {counted(suffixes)}" if suffixes else "no file"
        text = f"{where}: the folder of class {place.label!r}{split} has no readable image; it holds {contents}."
        findings.append(Finding("warning", text, "The class does not exist for training.", suffixes.total()))
    return findings

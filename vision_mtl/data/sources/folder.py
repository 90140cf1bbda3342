"""`folder/PATH`: one folder for each class, or a flat folder whose labels a regular expression reads from the paths.

`PATH/CLASS/**/image` gives the label CLASS. `PATH/train/CLASS/**/image` (with a folder `test` or `val` beside it) gives
the split as well. Files that are no images by suffix (lists, CSV files, notes) are passed over.
"""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np

from vision_mtl.data.decode import decode_bytes, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.source import SOURCES, Item


@SOURCES.register("folder")
class Folder:
    """Class folders. The label's column is called `label`; files that lie directly in PATH have none."""

    version = "1"

    def __init__(self, rest: str, root: Path) -> None:
        self.rest = rest

    def items(self) -> list[Item]:
        base, files = find_images(self.rest)
        relative = [PurePath(file.relative_to(base).as_posix()) for file in files]
        tops = {path.parts[0].lower() for path in relative if len(path.parts) > 1}
        has_splits = "train" in tops and tops <= SPLIT_WORDS.keys() and len(tops) > 1
        return [self._item(path, file, has_splits) for path, file in zip(relative, files, strict=True)]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)

    def _item(self, relative: PurePath, file: Path, has_splits: bool) -> Item:
        folders = relative.parts[:-1]
        split = SPLIT_WORDS[folders[0].lower()] if has_splits and folders else None
        classes = folders[1:] if split else folders
        labels = {"label": classes[0]} if classes else {}
        return Item(identity=str(relative), path=file.resolve(), labels=labels, split=split)

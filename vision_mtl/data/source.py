"""What a source is: a list of items, and a way to read one as an image.

A source is written `KIND/REST`, for example `folder/my/cars`, `bundled/digits` or `torch/MNIST`. KIND names the file in
`vision_mtl/data/sources/` that registers it. Listing the items must not decode images, so that `--stage data` can show
a plan of a large set at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal, Protocol, TypeGuard

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.registry import Registry

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Item:
    """One image of a source, not decoded.

    `identity` is unique within the source and stable between runs and machines (a relative path, an index): splits are
    drawn from it. `path` is the file's resolved absolute path, if it is a file: two sources that name one path name one
    instance. `labels` maps a column to its value as text; a missing or blank label is absent. `split` is the official
    or user-given side. Items of one `group` stay on one side and are one cluster in every interval.
    """

    identity: str
    path: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    group: str | None = None

    @property
    def file(self) -> Path:
        """`path` of an item that is a file; raises `ValueError` for one that is not."""
        if self.path is None:
            raise ValueError(f"{self.identity} is not a file")
        return self.path


class Source(Protocol):
    """Constructed as `cls(rest, root)`: the text after the first slash, and the folder for downloads."""

    def __init__(self, rest: str, root: Path) -> None: ...

    @property
    def version(self) -> str:
        """Part of the store's key: changes when the same items would decode to other pixels."""

    def items(self) -> list[Item]:
        """Every image, in a stable order. Raises `UserError` for a missing path, an empty source, a bad label file."""

    def read(self, item: Item) -> np.ndarray:
        """(H, W, C) uint8, C = 1 (grey) or 3 (RGB). Raises `data.decode.UnreadableImage` naming the file and why."""


class EncodedSource(Source, Protocol):
    """A source of image files, wherever they lie: `read` is `decode_bytes` of `encoded`.

    Its images are decoded at the scale that is needed, and may be streamed. Both methods are called by several threads.
    """

    def encoded(self, item: Item) -> bytes:
        """The file's bytes. Raises `data.decode.UnreadableImage`."""


def holds_files(source: Source) -> TypeGuard[EncodedSource]:
    """Whether it gives image files, not just pixels."""
    return hasattr(source, "encoded")


SOURCES: Registry[type[Source]] = Registry("source", "vision_mtl.data.sources")


def movable_name(name: str) -> str:
    """A source's kind and the last part of where it lies: `csv//home/ann/cars.csv` -> `csv/cars.csv`.

    What is drawn for images goes by it, so a folder that is moved, copied to another machine or written relative to
    another place keeps its sides. Two sources of one such name draw alike, image by image, which does no harm.
    """
    kind, _, rest = name.partition("/")
    return f"{kind}/{PurePath(rest).name or rest}"


def open_source(name: str, root: Path) -> Source:
    """The source written `KIND/REST`; raises `UserError` for an unknown kind, naming the nearest."""
    kind, slash, rest = name.partition("/")
    if not slash or not rest:
        raise UserError(f"a source is written KIND/REST, for example folder/my/cars; found {name!r}.")
    return SOURCES.get(kind)(rest, root)

"""The source protocol: a source lists items and reads an item as an image.

A source is written `KIND/REST`, for example `folder/my/cars`, `bundled/digits` or `torch/MNIST`. KIND is the name of
the file in `vision_mtl/data/sources/` that registers it. Listing the items must not decode images, so that
`--stage data` shows the plan of a large set at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Literal, Protocol, TypeGuard

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.registry import Registry
from vision_mtl.core.text import valid_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Item:
    """One image of a source, not decoded.

    `identity` is unique within the source and stable across runs and machines (a relative path, an index); splits are
    drawn from it. `path` is the absolute path of an image file as it is listed, links unresolved. Items with an equal
    `key` are one picture; `assemble.list_source` sets it for files (`files.picture_key`). `labels` maps a column to its
    value as text; a missing or blank label is absent. `split` is the official or user-given split. Items of the same
    `group` are in the same split and form one cluster in every interval. `kept` is the split that the item had in an
    earlier run (`data.split_files`): it takes precedence over `split`. `beside` names the folder, beside the split
    folders, of an image that has no label and is used for training only, if at all (`data.other_folders`).
    """

    identity: str
    path: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    group: str | None = None
    kept: Split | None = None
    key: Hashable | None = None
    beside: str | None = None

    @property
    def file(self) -> Path:
        """The path of an item that is a file. Raises `ValueError` for other items."""
        if self.path is None:
            raise ValueError(f"{self.identity} is not a file")
        return self.path


class Source(Protocol):
    """A set of images, constructed as `cls(rest, root)`: the text after the first slash, the folder for downloads.

    A source whose rows have named columns may set `has_columns = True`: it is then constructed as `cls(rest, root,
    image)`, with the name of the image column, or None for the only one. With `in_processes = True` its images are
    read in several processes, because threads would wait for each other; it must be picklable. A source may have a list
    `findings`, of `data.findings.Finding`: what `items` found out that its owner should know, for example skipped
    files; an error `unclear`, or None, which concerns only tasks that take labels or splits from its folders; and a
    mapping `unusable`, from columns that are no label columns to what they hold; and a method `independent_items`, used
    instead of `items` for runs with `data.split_rule` independent, where their official splits were others.
    """

    def __init__(self, rest: str, root: Path, *image: str | None) -> None: ...

    @property
    def version(self) -> str:
        """A part of the store's key that changes when the same items decode to different pixels."""

    def items(self) -> list[Item]:
        """Return all images in a stable order. Raises `UserError` for a missing path, no image, a bad label file."""

    def read(self, item: Item) -> np.ndarray:
        """Return (H, W, C): uint8, or the own numbers of a deep image; C = 1 (grey), 3 (RGB) or its bands.

        Raises `UnreadableImage` with the file and the reason.
        """


class EncodedSource(Source, Protocol):
    """A source of encoded image files, on disk or in an archive: `read` is `decode_bytes` of `encoded`.

    Its images can be decoded at a reduced scale and streamed. Several threads call both methods at once.
    """

    def encoded(self, item: Item) -> bytes:
        """Return the bytes of the image file. Raises `data.decode.UnreadableImage`."""


def holds_files(source: Source) -> TypeGuard[EncodedSource]:
    """Return True if the source gives encoded image files, not only pixels."""
    return hasattr(source, "encoded")


SOURCES: Registry[type[Source]] = Registry("source", "vision_mtl.data.sources")


def movable_name(name: str) -> str:
    """Return a source's kind and the last part of its path: `csv//home/ann/cars.csv` -> `csv/cars.csv`.

    Random draws depend on this name, so a folder that is moved, copied to another machine or given by a relative path
    keeps its splits. Two sources with the same name draw alike, which does no harm.
    """
    kind, _, rest = name.partition("/")
    return valid_text(f"{kind}/{PurePath(rest).name or rest}")


def with_valid_text(item: Item) -> Item:
    """Return the item with bytes that are not UTF-8 as escapes in its identity, labels and group; `path` keeps them."""
    texts = [item.identity, item.group or "", *item.labels, *item.labels.values()]
    if all(text is valid_text(text) for text in texts):
        return item
    labels = {valid_text(column): valid_text(value) for column, value in item.labels.items()}
    group = None if item.group is None else valid_text(item.group)
    return replace(item, identity=valid_text(item.identity), labels=labels, group=group)


def has_columns(name: str) -> bool:
    """Return True if the source written `KIND/REST` is of a known kind whose rows have named columns."""
    kind = name.partition("/")[0]
    return kind in SOURCES.names() and getattr(SOURCES.get(kind), "has_columns", False)


def open_source(name: str, root: Path, image: str | None = None) -> Source:
    """Return the source written `KIND/REST`; `image` names its image column, None: the only one.

    Raises `UserError` for a plain path, with the ways to write it as a source, for an unknown kind, with the nearest,
    and for an image column of a kind without columns.
    """
    kind, _, rest = name.partition("/")
    known = kind in SOURCES.names()
    if not rest or kind in ("", ".", "..") or kind.startswith("~") or (not known and Path(name).exists()):
        path = "PATH" if not name or known else name
        ways = {".csv": f"For a CSV file write csv/{path}.", ".tar": f"For WebDataset shards write wds/{path}."}
        folders = (
            f"For a folder with one folder per class write folder/{path}, for images without labels images/{path}."
        )
        raise UserError(
            f"a source is written KIND/REST; found {name!r}. {ways.get(Path(name).suffix.lower(), folders)} Kinds: "
            f"{', '.join(SOURCES.names())}."
        )
    source = SOURCES.get(kind)
    if has_columns(name):
        return source(rest, root, image)
    if image is not None:
        raise UserError(f"{name} has no columns, so it has no image column {image!r}: leave the option out.")
    return source(rest, root)

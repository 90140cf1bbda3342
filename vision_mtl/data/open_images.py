"""Opens the images of a source as a store or a stream, in 8 bits, or in 16-bit levels of a range.

A range that is found on training images is known only after the splits, which need the images' contents. Until then a
source with deep images is `Pending`: examined, but not decoded into a store.
"""
# N items, n readable images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.depth import DeepImage, ValueRange
from vision_mtl.data.examine import Examination, examine
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data
from vision_mtl.data.range_option import RangeOption
from vision_mtl.data.source import EncodedSource, Item, Source
from vision_mtl.data.store import Progress, Settings, open_store
from vision_mtl.data.stream import StreamedImages, is_streamed
from vision_mtl.data.value_ranges import KnownRanges, find_range, given_range

Images = np.ndarray | StreamedImages


@dataclass(frozen=True)
class Opened:
    """A source's images (n, H, W, C): `kept` (n,) are the items that can be read, `hashes` (n,) uint64 their contents.

    `unreadable` are (identity, reason) of the other items; `rebuilt` is the damage of a store that was built again.
    """

    images: Images
    hashes: np.ndarray
    kept: np.ndarray
    unreadable: list[tuple[str, str]]
    value_range: ValueRange | None = None
    rebuilt: str | None = None
    pending: Pending | None = None


@dataclass(frozen=True)
class Opening:
    """A source whose images are to be opened: its items, the form of its images, and the options of section `data`."""

    name: str
    source: Source
    items: Sequence[Item]
    settings: Settings
    data: Data
    progress: Progress | None

    @property
    def root(self) -> Path:
        """The folder of downloads and stores."""
        return Path(self.data.root).expanduser()

    def examine(self, *, decode_all: bool) -> Examination:
        """Return what the items are; `decode_all` decodes JPEG files, too. Raises `UserError`."""
        return examine(
            self.name,
            self.source,
            self.items,
            self.settings.channels,
            self.root,
            decode_all=decode_all,
            num_workers=self.data.num_workers,
            progress=self.progress,
        )

    def open(self, **settings: Any) -> Opened:
        """Open a stream or a store, with `settings` replaced.

        Raises `DeepImage` for a deep image if they are for 8 bits, or lack the range and its file declares no maximum.
        """
        own = replace(self, settings=replace(self.settings, **settings))
        if is_streamed(own.source, len(own.items), own.data, own.settings):
            return own._stream(own.source)
        return own._store()

    def _stream(self, source: EncodedSource) -> Opened:
        settings, data = self.settings, self.data
        if data.keep_near_duplicates_together:
            raise UserError(
                f"data.keep_near_duplicates_together needs stored images, but {self.name} is streamed. Leave the "
                "option out, or store the images with --data.stream false and a large enough --data.max_store_gb."
            )
        found = self.examine(decode_all=False)
        kept = found.kept
        lacking = np.flatnonzero(found.needs_range)
        if len(lacking) and settings.value_range is None:
            raise DeepImage(str(found.kinds[lacking[0]]))
        if found.is_deep and not settings.is_deep:
            raise DeepImage("uint16", has_maximum=True)
        items = [self.items[row] for row in kept.tolist()]
        images = StreamedImages(self.name, source, items, settings, data.num_workers, data.skip_unreadable)
        return Opened(images, found.contents[kept], kept, found.unreadable(self.items), settings.value_range)

    def _store(self) -> Opened:
        store = open_store(
            self.name,
            self.source,
            self.items,
            self.settings,
            self.root,
            max_gb=self.data.max_store_gb,
            num_workers=self.data.num_workers,
            progress=self.progress,
        )
        pixels = store.images if len(store.kept) == len(self.items) else store.images[store.kept]
        return Opened(pixels, store.hashes, store.kept, store.unreadable, self.settings.value_range, store.rebuilt)


@dataclass(frozen=True)
class Pending:
    """A source with deep images of an unknown range, to be opened with `open` after the splits."""

    opening: Opening
    option: RangeOption | None
    examined: Examination

    def warn_of_mixtures(self, findings: Findings) -> None:
        """Warn if the images have several types of numbers: one range suits them only by chance."""
        kept = self.examined.kept
        named = np.where(self.examined.kinds == "", "8-bit", self.examined.kinds)[kept]
        kinds, counts = np.unique(named, return_counts=True)
        if len(kinds) > 1:
            listed = ", ".join(f"{count:,} {kind}" for kind, count in zip(kinds, counts, strict=True))
            findings.warn(
                f"{self.opening.name} mixes types of numbers ({listed}): 8-bit images are full scale at 255, others "
                "share one range.",
                "Keep them in separate sources if their values mean different things.",
                len(kept),
            )

    def open(self, is_train: np.ndarray) -> Opened:
        """Find the range on the readable images that `is_train` (n,) marks, and open all images. Raises `UserError`."""
        opening, examined, kept = self.opening, self.examined, self.examined.kept
        rows = kept[is_train & examined.needs_range[kept]]
        value_range = find_range(
            opening.name,
            opening.source,
            [opening.items[row] for row in rows.tolist()],
            self.option,
            (examined.lows[rows], examined.highs[rows]),
            np.unique(examined.kinds[examined.needs_range]),
            examined.contents[rows],
            opening.root / "store",
            opening.data.num_workers,
            opening.progress,
        )
        opened = opening.open(is_deep=True, value_range=value_range)
        if not np.array_equal(opened.kept, kept):
            raise UserError(f"files of {opening.name} have changed while they were read: run the same command again.")
        return opened


def open_images(opening: Opening, option: RangeOption | None, known: KnownRanges | None) -> Opened:
    """Open the images; they are pending if they are deep and neither `option` nor `known` gives their range."""
    try:
        return opening.open()
    except DeepImage as error:
        deep = error
    if deep.has_maximum:
        try:
            return opening.open(is_deep=True)
        except DeepImage as error:  # another file of the source declares none
            deep = error
    value_range = given_range(opening.name, deep.kind, option, known)
    if value_range is not None:
        return opening.open(is_deep=True, value_range=value_range)
    _refuse_near(opening.name, opening.data)
    settings = replace(opening.settings, is_deep=True)
    streamed = is_streamed(opening.source, len(opening.items), opening.data, settings)
    examined = opening.examine(decode_all=not streamed)
    kept, nothing = examined.kept, np.empty((0, *settings.shape), settings.dtype)
    pending = Pending(opening, option, examined)
    return Opened(nothing, examined.contents[kept], kept, examined.unreadable(opening.items), pending=pending)


def _refuse_near(name: str, data: Data) -> None:
    if data.keep_near_duplicates_together:
        raise UserError(
            f"data.keep_near_duplicates_together compares pixels before the splits are drawn, but the range of {name} "
            "is found on its training images. Leave the option out, or declare the range with data.value_range or "
            "tasks.NAME.value_range."
        )

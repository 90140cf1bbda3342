"""Opens the images of a source as a store or a stream, in 8 bits, or in 16-bit levels of a range.

A range that is found on training images is known only after the splits, which need the images' contents. Until then a
source with deep images is `Pending`: examined, but not decoded into a store.
"""
# N items, n readable images, C channels, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.depth import DeepImage, ValueRange
from vision_mtl.data.examine import Examination, examine
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data
from vision_mtl.data.range_option import RangeOption
from vision_mtl.data.source import Item, Source
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
class Pending:
    """A source with deep images of an unknown range, to be opened with `open` after the splits."""

    name: str
    source: Source
    items: Sequence[Item]
    settings: Settings
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
                f"{self.name} mixes types of numbers ({listed}): 8-bit images are full scale at 255, others share one "
                "range.",
                "Keep them in separate sources if their values mean different things.",
                len(kept),
            )

    def open(self, is_train: np.ndarray, data: Data, progress: Progress | None) -> Opened:
        """Find the range on the readable images that `is_train` (n,) marks, and open all images. Raises `UserError`."""
        examined, kept = self.examined, self.examined.kept
        rows = kept[is_train & examined.needs_range[kept]]
        root = Path(data.root).expanduser()
        value_range = find_range(
            self.name,
            self.source,
            [self.items[row] for row in rows.tolist()],
            self.option,
            (examined.lows[rows], examined.highs[rows]),
            np.unique(examined.kinds[examined.needs_range]),
            examined.contents[rows],
            root / "store",
            data.num_workers,
            progress,
        )
        settings = replace(self.settings, value_range=value_range)
        opened = _open(self.name, self.source, self.items, settings, data, root, progress)
        if not np.array_equal(opened.kept, kept):
            raise UserError(f"files of {self.name} have changed while they were read: run the same command again.")
        return opened


def open_images(
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    data: Data,
    option: RangeOption | None,
    known: KnownRanges | None,
    progress: Progress | None,
) -> Opened:
    """Open the images; they are pending if they are deep and neither `option` nor `known` gives their range."""
    root = Path(data.root).expanduser()
    try:
        return _open(name, source, items, settings, data, root, progress)
    except DeepImage as error:
        deep = error
    settings = replace(settings, is_deep=True)
    if deep.has_maximum:
        try:
            return _open(name, source, items, settings, data, root, progress)
        except DeepImage as error:  # another file of the source declares none
            deep = error
    value_range = given_range(name, deep.kind, option, known)
    if value_range is not None:
        return _open(name, source, items, replace(settings, value_range=value_range), data, root, progress)
    _refuse_near(name, data)
    streamed = is_streamed(source, len(items), data, settings)
    examined = _examined(name, source, items, settings, data, root, progress, decode_all=not streamed)
    kept, nothing = examined.kept, np.empty((0, *settings.shape), settings.dtype)
    pending = Pending(name, source, items, settings, option, examined)
    return Opened(nothing, examined.contents[kept], kept, examined.unreadable(items), pending=pending)


def _open(
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    data: Data,
    root: Path,
    progress: Progress | None,
) -> Opened:
    """Open a stream or a store. Raises `DeepImage` if `settings` are for 8 bits, or lack the range, of a deep image."""
    if is_streamed(source, len(items), data, settings):
        if data.keep_near_duplicates_together:
            raise UserError(
                f"data.keep_near_duplicates_together needs stored images, but {name} is streamed. Leave the option "
                "out, or store the images with --data.stream false and a large enough --data.max_store_gb."
            )
        found = _examined(name, source, items, settings, data, root, progress, decode_all=False)
        kept = found.kept
        lacking = np.flatnonzero(found.needs_range)
        if len(lacking) and settings.value_range is None:
            raise DeepImage(str(found.kinds[lacking[0]]))
        if found.is_deep and not settings.is_deep:
            raise DeepImage("uint16", has_maximum=True)
        own = [items[row] for row in kept.tolist()]
        images = StreamedImages(name, source, own, settings, data.num_workers, data.skip_unreadable)
        return Opened(images, found.contents[kept], kept, found.unreadable(items), settings.value_range)
    store = open_store(
        name,
        source,
        items,
        settings,
        root,
        max_gb=data.max_store_gb,
        num_workers=data.num_workers,
        progress=progress,
    )
    pixels = store.images if len(store.kept) == len(items) else store.images[store.kept]
    return Opened(pixels, store.hashes, store.kept, store.unreadable, settings.value_range, store.rebuilt)


def _examined(
    name: str,
    source: Source,
    items: Sequence[Item],
    settings: Settings,
    data: Data,
    root: Path,
    progress: Progress | None,
    *,
    decode_all: bool,
) -> Examination:
    workers = data.num_workers
    return examine(
        name, source, items, settings.channels, root, decode_all=decode_all, num_workers=workers, progress=progress
    )


def _refuse_near(name: str, data: Data) -> None:
    if data.keep_near_duplicates_together:
        raise UserError(
            f"data.keep_near_duplicates_together compares pixels before the splits are drawn, but the range of {name} "
            "is found on its training images. Leave the option out, or declare the range with data.value_range or "
            "tasks.NAME.value_range."
        )

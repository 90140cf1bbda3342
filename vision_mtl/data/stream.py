"""Streamed images: decoded during training, for sources that are too large for a store.

A first pass examines every file (`examine.py`): it finds unreadable files and, by content, duplicates, so that splits
are drawn as for stored images. Streaming then needs no further memory or disk.
"""
# N images, H W pixels, C channels

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import UnreadableImage, decode_fitted
from vision_mtl.data.depth import DeepImage, full_scale, widened
from vision_mtl.data.options import Data
from vision_mtl.data.reading import name_of
from vision_mtl.data.source import EncodedSource, Item, Source, holds_files
from vision_mtl.data.store import Settings
from vision_mtl.data.threads import threads


@dataclass(frozen=True)
class StreamedImages:
    """An array-like (N, H, W, C) of images that threads decode when rows are indexed: 8 bits, or 16-bit levels.

    `failed` maps the identity of an item that could not be decoded, and became plain grey, to the reason.
    """

    name: str
    source: EncodedSource
    items: Sequence[Item]
    settings: Settings
    num_workers: int = 0  # threads that decode; 0: one per core
    skip_unreadable: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (N, H, W, C)."""
        return (len(self.items), *self.settings.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of a pixel's number: uint8 or uint16."""
        return self.settings.dtype

    @property
    def nbytes(self) -> int:
        """0: no decoded image is kept."""
        return 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.read(rows, self.num_workers)

    def read(self, rows: np.ndarray, num_workers: int) -> np.ndarray:
        """Decode the images `rows` (n,) to (n, H, W, C).

        `num_workers` 0 uses one thread per core, 1 the caller's thread. Raises `UserError` for a file that cannot be
        decoded, unless `skip_unreadable`.
        """
        pixels = np.empty((len(rows), *self.settings.shape), self.dtype)
        workers = max(1, min(num_workers or os.cpu_count() or 1, len(rows)))

        def fill(part: int) -> None:
            for place in range(part, len(rows), workers):
                pixels[place] = self._decode(self.items[int(rows[place])])

        if workers == 1:
            fill(0)
        else:
            with threads(workers) as pool:
                list(pool.map(fill, range(workers)))  # list() raises the exceptions of the threads
        return pixels

    def part(self, rows: np.ndarray) -> StreamedImages:
        """Return the images at `rows` (n,), still streamed."""
        return StreamedImages(**{**vars(self), "items": [self.items[row] for row in rows]})

    def _decode(self, item: Item) -> np.ndarray:
        settings = self.settings
        size, channels, fit, value_range = settings.image_size, settings.channels, settings.fit, settings.value_range
        try:
            data = self.source.encoded(item)
            pixels = decode_fitted(data, name_of(item), size, channels, fit, value_range)[0]
            if pixels.dtype.itemsize > self.dtype.itemsize:
                raise UnreadableImage(name_of(item), "it had 8 bits when the run began, and has more now")
            return widened(pixels) if settings.is_deep else pixels
        except DeepImage as error:
            raise UserError(f"{item.identity!r} of {self.name} has changed since the run began: {error}.") from error
        except UnreadableImage as error:
            if not self.skip_unreadable:
                raise UserError(
                    f"{item.identity!r} of {self.name} cannot be decoded: {error.reason}. Repair it and run the same "
                    "command again, which resumes from the last checkpoint; or start a new run (with --init_from this "
                    "one to keep its weights) with --data.skip_unreadable, which replaces such images by plain grey."
                ) from error
            self.failed[item.identity] = error.reason
            grey = np.empty(settings.shape, self.dtype)
            grey[:] = (full_scale(grey) + 1) // 2
            return grey


def is_streamed(source: Source, num_items: int, data: Data, settings: Settings) -> TypeGuard[EncodedSource]:
    """Return True if a source of image files is streamed: by option, or because its store would be too large.

    Other sources (packaged, drawn or torchvision's sets) are in memory anyway, so they are stored.
    """
    needed = num_items * settings.image_bytes
    return holds_files(source) and (data.stream is True or (data.stream == "auto" and needed > data.max_store_gb * 1e9))

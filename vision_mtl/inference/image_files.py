"""Image files to predict: found by path, folder or glob, and decoded in batches by threads."""
# H W pixels, C channels

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import UnreadableImage, decode_fitted, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.findings import Findings
from vision_mtl.data.resize import Fit, resize, to_channels
from vision_mtl.data.skipped import skipped_findings

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class ImageFile:
    """An image to predict. `name` is its path as given, `inner` the part below a given folder, `path` None for `-`."""

    name: str
    inner: str
    path: Path | None


@dataclass(frozen=True)
class Decoded:
    """An image at the model's size, `pixels` (H, W, C) uint8, and the (height, width) of its file."""

    pixels: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """The size, channels and fit of a model's images."""

    size: tuple[int, int]
    channels: int
    fit: Fit

    def read(self, file: ImageFile) -> Decoded | UnreadableImage:
        """Return the file's image, or the reason why it cannot be read."""
        try:
            data = sys.stdin.buffer.read() if file.path is None else file_bytes(file.path)
            name = file.path or "standard input"
            return Decoded(*decode_fitted(data, name, self.size, self.channels, self.fit))
        except UnreadableImage as error:
            return UnreadableImage(file.name, error.reason)

    def fit_pixels(self, pixels: np.ndarray) -> Decoded:
        """Return pixels (H, W, 1 or 3) uint8 of any size at the model's size."""
        shape = (pixels.shape[0], pixels.shape[1])
        return Decoded(to_channels(resize(pixels, self.size, self.fit), self.channels), shape)


def find_inputs(given: Sequence[str], findings: Findings | None = None) -> list[ImageFile]:
    """Return the images of files, folders, globs and `-` (standard input), in the order given, each once.

    Folders and globs skip files without an image suffix; a file that is named is always included. Raises `UserError`
    for a missing path, and for a folder or glob without an image. What was skipped is added to `findings`.
    """
    found: dict[str, ImageFile] = {}
    for text in given:
        for file in _inputs_of(text, findings):
            found.setdefault(file.name, file)
    return list(found.values())


def _inputs_of(text: str, findings: Findings | None) -> list[ImageFile]:
    if text == STANDARD_INPUT:
        return [ImageFile(STANDARD_INPUT, "stdin", None)]
    typed = Path(text)
    if os.path.isfile(typed.expanduser()):
        return [ImageFile(valid_text(typed.as_posix()), valid_text(typed.name), typed.expanduser())]
    images = find_images(text)
    if findings is not None:
        findings.add(skipped_findings(text, images.walk))
    is_glob = glob.has_magic(text) and not os.path.isdir(typed.expanduser())
    folder = next(p for p in typed.parents if not glob.has_magic(str(p))) if is_glob else typed
    inner = [valid_text(name) for name in images.names]
    return [
        ImageFile(valid_text((folder / part).as_posix()), part, file)
        for part, file in zip(inner, images.files, strict=True)
    ]


def decoded_batches(
    files: Sequence[ImageFile], frame: Frame, batch_size: int, num_workers: int
) -> Iterator[list[tuple[ImageFile, Decoded | UnreadableImage]]]:
    """Yield the files in order with their images, `batch_size` at a time.

    The next batch is decoded while the caller uses this one, so two batches are in memory. `num_workers` is the number
    of threads; 0: one per core.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(num_workers or os.cpu_count()) as pool:
        ahead: list[Future[Decoded | UnreadableImage]] = []
        for number, batch in enumerate(batches):
            current = ahead or [pool.submit(frame.read, file) for file in batch]
            ahead = [pool.submit(frame.read, file) for file in batches[number + 1]] if batch is not batches[-1] else []
            yield list(zip(batch, (future.result() for future in current), strict=True))


def unreadable_text(unreadable: Sequence[UnreadableImage], shown: int = 10) -> str:
    """Return the first `shown` unreadable files with their reasons, one per line."""
    lines = [f"  {error.path}: {error.reason}" for error in unreadable[:shown]]
    return "\n".join(lines + ([f"  ... and {len(unreadable) - shown} more"] if len(unreadable) > shown else []))


def require_counts(**counts: tuple[int, int]) -> None:
    """Raise `UserError` for an option of `predict` below its minimum; `counts` holds (value, minimum) by option."""
    for name, (value, minimum) in counts.items():
        if value < minimum:
            raise UserError(f"predict.{name} must be {minimum} or more; found {value}.")

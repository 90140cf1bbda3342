"""The images that `predict` is asked about: found as the user named them, decoded ahead by threads, batch by batch."""
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
from vision_mtl.data.decode import UnreadableImage, decode_fitted, file_bytes
from vision_mtl.data.files import find_images
from vision_mtl.data.resize import Fit, resize, to_channels

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class ImageFile:
    """`name` is the path as the user gave it, `inner` its part below a given folder; `path` None: standard input."""

    name: str
    inner: str
    path: Path | None


@dataclass(frozen=True)
class Decoded:
    """An image as the model takes it, `pixels` (H, W, C) uint8, and the (height, width) that its file has."""

    pixels: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """What a model was trained on: every image is brought to it."""

    size: tuple[int, int]
    channels: int
    fit: Fit

    def read(self, file: ImageFile) -> Decoded | UnreadableImage:
        """The file's image, or why there is none."""
        try:
            if file.path is None:
                data, name = sys.stdin.buffer.read(), "standard input"
            else:
                data, name = file_bytes(file.path), file.path
            return Decoded(*decode_fitted(data, name, self.size, self.channels, self.fit))
        except UnreadableImage as error:
            return UnreadableImage(file.name, error.reason)

    def bring(self, pixels: np.ndarray) -> Decoded:
        """(H, W, 1 or 3) uint8 of any size, brought to the frame."""
        shape = (pixels.shape[0], pixels.shape[1])
        return Decoded(to_channels(resize(pixels, self.size, self.fit), self.channels), shape)


def find_inputs(given: Sequence[str]) -> list[ImageFile]:
    """Files, folders, globs and `-` -> the images, in the order given, each once.

    A file that is named is taken at its word; in folders and globs, files that are no images by suffix are passed over.
    Raises `UserError` for a path that is not there, and for a folder or glob without an image.
    """
    found: dict[str, ImageFile] = {}
    for text in given:
        for file in _inputs_of(text):
            found.setdefault(file.name, file)
    return list(found.values())


def _inputs_of(text: str) -> list[ImageFile]:
    if text == STANDARD_INPUT:
        return [ImageFile(STANDARD_INPUT, "stdin", None)]
    typed = Path(text)
    if typed.expanduser().is_file():
        return [ImageFile(_printable(typed.as_posix()), _printable(typed.name), typed.expanduser())]
    base, files = find_images(text)
    is_glob = glob.has_magic(text) and not typed.expanduser().is_dir()
    folder = next(p for p in typed.parents if not glob.has_magic(str(p))) if is_glob else typed
    inner = [_printable(file.relative_to(base).as_posix()) for file in files]
    return [
        ImageFile(_printable((folder / part).as_posix()), part, file) for part, file in zip(inner, files, strict=True)
    ]


def _printable(path: str) -> str:
    """A name may hold bytes that are no text, which neither CSV nor JSON can: they are written as escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def decoded_batches(
    files: Sequence[ImageFile], frame: Frame, batch_size: int, num_workers: int
) -> Iterator[list[tuple[ImageFile, Decoded | UnreadableImage]]]:
    """The files in order, `batch_size` at a time; the next batch is decoded while the caller works on this one.

    Two batches are in memory, however many files there are. `num_workers` threads, 0: one a core.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(num_workers or os.cpu_count()) as pool:
        ahead: list[Future[Decoded | UnreadableImage]] = []
        for number, batch in enumerate(batches):
            current = ahead or [pool.submit(frame.read, file) for file in batch]
            ahead = [pool.submit(frame.read, file) for file in batches[number + 1]] if batch is not batches[-1] else []
            yield list(zip(batch, (future.result() for future in current), strict=True))


def unreadable_text(unreadable: Sequence[UnreadableImage], shown: int = 10) -> str:
    """The first `shown` unreadable files with their reasons, one a line."""
    lines = [f"  {error.path}: {error.reason}" for error in unreadable[:shown]]
    return "\n".join(lines + ([f"  ... and {len(unreadable) - shown} more"] if len(unreadable) > shown else []))


def require_counts(**counts: tuple[int, int]) -> None:
    """Each option's (value, least allowed); raises `UserError` naming the option that is below."""
    for name, (value, least) in counts.items():
        if value < least:
            raise UserError(f"predict.{name} must be {least} or more; found {value}.")

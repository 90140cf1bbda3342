"""Image files to predict: found by path, folder or glob, and decoded in batches by threads."""
# H W pixels, C channels

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import UnreadableImage, decode_raw, file_bytes
from vision_mtl.data.depth import DeepImage, Raw, Scale, ValueRange, to_levels
from vision_mtl.data.files import find_images
from vision_mtl.data.findings import Findings
from vision_mtl.data.range_option import RangeGiven, read_range
from vision_mtl.data.reading import raw_of
from vision_mtl.data.resize import Fit, resize, to_channels
from vision_mtl.data.skipped import skipped_findings
from vision_mtl.data.value_ranges import KnownRanges

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class ImageFile:
    """An image to predict. `name` is its path as given, `inner` the part below a given folder, `path` None for `-`."""

    name: str
    inner: str
    path: Path | None


@dataclass(frozen=True)
class Decoded:
    """An image at the model's size, `pixels` (H, W, C) in 8 bits or 16-bit levels, and its file's (height, width).

    `clipped` is the share of its values that lie outside the range.
    """

    pixels: np.ndarray
    shape: tuple[int, int]
    clipped: float = 0.0


@dataclass(frozen=True)
class Frame:
    """The size, channels and fit of a model's images, the range of deep ones, and the bands that pictures show.

    `value_range` is the range, "full" that of each image's integer type, or None, for the reason `no_range`.
    """

    size: tuple[int, int]
    channels: int
    fit: Fit
    value_range: Scale = None
    no_range: str = ""
    rgb_bands: Sequence[int] | None = None

    def read(self, file: ImageFile) -> Decoded | UnreadableImage:
        """Return the file's image, or the reason why it cannot be read."""
        try:
            data = sys.stdin.buffer.read() if file.path is None else file_bytes(file.path)
            return self.decode(data, file.path or "standard input")
        except UnreadableImage as error:
            return UnreadableImage(file.name, error.reason)

    def decode(self, data: bytes, name: Path | str) -> Decoded:
        """Return an encoded image at the model's size. Raises `UnreadableImage` with `name`, also without its range.

        JPEG files are decoded in full, not at a reduced scale as for training: so any other program that decodes,
        averages over areas and runs the exported model gets the same prediction.
        """
        raw = decode_raw(data, name)
        try:
            return self._fitted(raw, name)
        except DeepImage as error:
            raise UnreadableImage(name, f"{error}: {self.no_range}") from error

    def fit_pixels(self, pixels: np.ndarray) -> Decoded:
        """Return an array (H, W, C) of any size at the model's size; 8 bits are full scale at 255.

        Raises `UserError` if the array is deep and its range is unknown.
        """
        return self.fit_raw(raw_of(pixels))

    def fit_raw(self, raw: Raw) -> Decoded:
        """Return an image of any size at the model's size; raises `UserError` if its range is unknown."""
        try:
            return self._fitted(raw, "an image")
        except DeepImage as error:
            raise UserError(f"an image cannot be scaled: {error}. {self.no_range}") from error

    def _fitted(self, raw: Raw, name: Path | str) -> Decoded:
        pixels = resize(to_levels(raw, self.value_range, name), self.size, self.fit)
        clipped = 0.0
        if raw.maximum is None and isinstance(self.value_range, ValueRange):
            low, high = self.value_range.low, self.value_range.high
            clipped = float(np.mean((raw.values < low) | (raw.values > high)))
        return Decoded(to_channels(pixels, self.channels, name), raw.values.shape[:2], clipped)


def frame_of(
    state: Mapping[str, Any],
    where: str,
    size: tuple[int, int],
    channels: int,
    value_range: RangeGiven = None,
    option: str = "value_range",
    fit: Fit | None = None,
) -> Frame:
    """Return the frame of the run or checkpoint `where` with metadata `state`; `value_range` overrides its range.

    `option` is the name of that option. Raises `UserError` for percentiles, for which there are no training images.
    """
    data, given = state["data"], read_range(option, value_range)
    known, reason = KnownRanges.of(where, state), ""
    chosen: Scale = None
    if given is not None and given.unit == "percent":
        raise UserError(f"{option} takes two numbers, or full: percentiles need training images; found {value_range}.")
    if given is not None:
        chosen = "full" if given.unit == "full" else ValueRange(given.low, given.high)
    else:
        try:
            chosen = known.only(option)
        except UserError as error:
            reason = str(error)
    return Frame(size, channels, fit or data["fit"], chosen, reason, data.get("rgb_bands"))


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

"""Finds the range of a source's deep images: declared, that of the run to start from, or found on training images.

One voxel of an outlier moves the range of the whole source a little, and no image's own range matters, so that an image
and its double differ. Validation and test images have no influence.
"""
# n training images

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.data.depth import LEVELS, ValueRange, full_range, kind_of
from vision_mtl.data.range_option import FORMS, RangeOption
from vision_mtl.data.reading import finite_values
from vision_mtl.data.source import Item, Source
from vision_mtl.data.store import RANGE_FILES, Progress
from vision_mtl.data.threads import in_order, threads

BINS = 1 << 16  # of the histograms in which percentiles are found
MAX_PASSES = 8  # over the training images: each one narrows the search by `BINS`, unless the values are very uneven


@dataclass(frozen=True)
class KnownRanges:
    """The ranges of a run, by source; {} if it was trained on 8-bit images. `where` names the run."""

    where: str
    by_source: Mapping[str, ValueRange]

    @classmethod
    def of(cls, where: str, state: Mapping[str, Any]) -> KnownRanges:
        """Return the ranges in a checkpoint's JSON part; runs from before there were any have none."""
        entries = state.get("value_ranges") or {}
        return cls(
            where, {name: ValueRange(e["low"], e["high"], e["from"], e.get("kind", "")) for name, e in entries.items()}
        )

    def only(self, option: str) -> ValueRange:
        """Return the one range of all sources; raises `UserError` naming the `option` that declares it."""
        found = {(known.low, known.high): known for known in self.by_source.values()}
        forms = FORMS.format(name=option) if option.startswith(("data.", "tasks.")) else "two numbers, or full"
        if len(found) == 1:
            kinds = {known.kind for known in self.by_source.values()}
            (low, high), kind = next(iter(found)), next(iter(kinds)) if len(kinds) == 1 else ""
            return ValueRange(low, high, f"the range of {self.where}", kind)
        if not found:
            raise UserError(f"{self.where} was trained on 8-bit images; declare {option}: {forms}.")
        ranges = "; ".join(f"{name}: {known}" for name, known in self.by_source.items())
        raise UserError(f"{self.where} has several ranges ({ranges}); choose one with --{option}: {forms}.")


def described(ranges: Mapping[str, ValueRange]) -> dict[str, dict[str, Any]]:
    """Return ranges as they are stored in a run: by source, `low`, `high`, `from` and `kind`."""
    return {name: {"low": r.low, "high": r.high, "from": r.origin, "kind": r.kind} for name, r in ranges.items()}


def given_range(source: str, kind: str, option: RangeOption | None, known: KnownRanges | None) -> ValueRange | None:
    """Return the range of a source without looking at its images; None if it must be found on the training images.

    `kind` is the type of its numbers. Raises `UserError` if the run to start from has no range for it.
    """
    if option is not None and option.unit == "value":
        return ValueRange(option.low, option.high, kind=kind_of(kind))
    if option is not None and option.unit == "full":
        return full_range(kind, source)
    own = known.by_source.get(source) if known else None
    if own is not None and (option is None or own.origin.startswith(f"{option} ")):
        return own
    if known is not None and option is None:
        try:
            found = known.only("data.value_range")
        except UserError as error:
            raise UserError(f"{source} has {kind} values, whose scale is not known: {error}") from error
        if found.suits(kind):
            return found
        raise UserError(
            f"{source} has {kind} values, and {known.where} was trained on {found.kind} ones ({found}): declare "
            f"data.value_range: {FORMS.format(name='data.value_range')}."
        )
    return None


def find_range(
    name: str,
    source: Source,
    items: Sequence[Item],
    option: RangeOption | None,
    limits: tuple[np.ndarray, np.ndarray],
    kinds: np.ndarray,
    contents: np.ndarray,
    folder: Path,
    num_workers: int,
    progress: Progress | None,
) -> ValueRange:
    """Return the range of a source's training images `items` (n,); `limits` are their (n,) lows and highs.

    `kinds` (m,) are the types of numbers of all its deep images. Percentiles need further passes over the images; their
    result is cached in `folder` by the images' `contents` (n,). Raises `UserError` if there is no image, or only one
    value.
    """
    if not items:
        raise UserError(
            f"{name} has images with more than 8 bits, but none of its training images, on which their range is found: "
            f"declare data.value_range or tasks.NAME.value_range: {FORMS.format(name='data.value_range')}."
        )
    kind = kind_of(kinds[0])
    if other := next((found for found in kinds if kind_of(found) != kind), None):
        raise UserError(
            f"{name} holds {kinds[0]} and {other} images, whose scales differ: keep them in separate sources."
        )
    low, high = float(limits[0].min()), float(limits[1].max())
    origin = f"minimum and maximum of {len(items):,} training images"
    if option is not None and (option.low, option.high) != (0, 100):
        origin = f"{option} of the values of {len(items):,} training images"
        key = hashlib.blake2b(f"{option}".encode() + np.sort(contents).tobytes(), digest_size=12).hexdigest()
        file = folder / f"{RANGE_FILES}{key}.json"
        low, high = _recalled(file) or _percentiles(name, source, items, option, (low, high), num_workers, progress)
        atomic_write_json(file, [low, high])
    if not low < high:
        raise UserError(
            f"the training images of {name} have the single value {low:g} ({origin}): declare data.value_range or "
            f"tasks.NAME.value_range: {FORMS.format(name='data.value_range')}."
        )
    return ValueRange(low, high, origin, kind)


def _recalled(file: Path) -> tuple[float, float] | None:
    try:
        low, high = json.loads(file.read_text("utf-8"))
        return float(low), float(high)
    except (OSError, ValueError, TypeError):
        return None


def _percentiles(
    name: str,
    source: Source,
    items: Sequence[Item],
    option: RangeOption,
    limits: tuple[float, float],
    num_workers: int,
    progress: Progress | None,
) -> tuple[float, float]:
    def passes() -> Iterable[np.ndarray]:
        with threads(num_workers) as pool:
            for done, values in enumerate(in_order(pool, lambda item: finite_values(source, item), items), start=1):
                if progress is not None:
                    progress(f"percentiles of {name}", done, len(items))
                yield values

    low, high = percentiles(passes, (option.low / 100, option.high / 100), limits)
    return low, high


def percentiles(
    passes: Callable[[], Iterable[np.ndarray]], shares: tuple[float, ...], limits: tuple[float, float]
) -> tuple[float, ...]:
    """Return the value below which each of `shares` of all values lies, to 1 / 65535 of the range between them.

    Each call of `passes` yields all values again, in arrays (m,) between `limits`.
    """
    search, whole = [_Search(*limits) for _ in shares], True
    for _ in range(MAX_PASSES):
        counts = [np.zeros(BINS, np.int64) for _ in shares]
        total = 0
        for values in passes():
            total += values.size
            whole &= values.dtype.kind in "iu"
            for one, count in zip(search, counts, strict=True):
                count += one.histogram(values)
        for one, count, share in zip(search, counts, shares, strict=True):
            one.narrow(count, share * (total - 1))
        width = max(abs(search[-1].middle - search[0].middle), np.finfo(np.float64).tiny)
        if all(one.high - one.low <= (min(width / LEVELS, 0.5) if whole else width / LEVELS) for one in search):
            break
    return tuple(float(round(one.middle)) if whole else one.middle for one in search)


@dataclass
class _Search:
    """The search for one percentile, which lies between `low` and `high`; `below` values are less than `low`."""

    low: float
    high: float
    below: int = 0

    @property
    def middle(self) -> float:
        return self.low + (self.high - self.low) / 2

    def histogram(self, values: np.ndarray) -> np.ndarray:
        """Return the (BINS,) counts of the values between `low` and `high`."""
        inside = values[(values >= self.low) & (values <= self.high)].astype(np.float64)
        width = (self.high - self.low) / BINS
        bins = np.minimum((inside - self.low) / width, BINS - 1) if width > 0 else np.zeros(inside.size)
        return np.bincount(bins.astype(np.int64), minlength=BINS)

    def narrow(self, counts: np.ndarray, rank: float) -> None:
        """Keep the bin that holds the value of `rank` among all values."""
        sums = np.cumsum(counts) + self.below
        found = min(int(np.searchsorted(sums, rank, side="right")), BINS - 1)
        width = (self.high - self.low) / BINS
        self.below = int(sums[found - 1]) if found else self.below
        self.low, self.high = self.low + found * width, self.low + (found + 1) * width

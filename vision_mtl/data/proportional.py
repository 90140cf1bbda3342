"""Splits in proportion: each class of each source is divided in the asked shares, to within one image.

Classes are the values of a source's label columns, whatever the tasks are: so a source has the same splits in runs with
different tasks. Units with the same sources, classes and shares form a stratum. Its units are sorted by a keyed hash of
their names: the first ones are test, the next val, the rest train. How many is the share of its images, rounded down;
the one or two images that remain go to the splits that lack most images so far, in the source and in the classes that
several strata share (several columns). So the sums over strata stay in proportion too. A class whose last stratum comes
and that has no training image gets one first. The value of a single unit (a person's name) is no class here.

In a source with one label column, without groups, each class is within one image of the shares, and so is the source if
every class is large enough for a training image. Proof for the source: let x be the images that its three splits lack,
which add up to 0. A stratum with one remaining image adds fractions that add up to 1 and subtracts 1 from the largest
sum, which is at least 1/3: no x falls below -2/3 by it, and a split that was not chosen has at most the mean of itself
and the chosen one, (1 - min x) / 2. With two remaining images the same holds with all signs changed. So the largest x
and the largest -x follow a <- (1 + b) / 2 and b <- (1 + a) / 2 from 0, and stay below 1.

Units of several images (groups, duplicates) come first, the largest first, each to the split that lacks most images:
a source's split lacks at most two images for each image of the largest unit, and has at most one too many, apart from
training units for classes of one or two units.

The counts depend on the number of images: adding an image may move a few others, of its class and of later ones.
"""
# N images, U units, S sources, M margins (sources, then classes), T strata

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision_mtl.data.splits import TEST, TRAIN, VAL

ORDER = (TEST, VAL, TRAIN)  # of the splits in a stratum sorted by hash, and between splits that lack equally many
DIGITS = 9  # shares are compared after rounding, so that floating-point errors decide nothing

Lag = list[float]  # images that train, val and test lack


@dataclass(frozen=True)
class Margins:
    """The sums that stay in proportion: `image` and `margin` (n,) tell which image counts in which of `count` margins.

    The first `num_sources` margins are sources. `is_class` (M,): each of them needs a training image.
    """

    image: np.ndarray
    margin: np.ndarray
    num_sources: int
    is_class: np.ndarray


def margins(member: np.ndarray, columns: Sequence[tuple[np.ndarray, np.ndarray]]) -> Margins:
    """Return the margins of N images: their sources (`member` (N, S)), and the classes of label columns.

    Each column has (n,) images and the (n,) numbers of their classes, from 0.
    """
    found = [np.nonzero(member)]
    count = member.shape[1]
    for image, number in columns:
        found.append((image, count + number))
        count += int(number.max(initial=-1)) + 1
    image, margin = (np.concatenate(part) for part in zip(*found, strict=True))
    pairs = np.unique(image * count + margin)  # a source may list an image twice
    return Margins(pairs // count, pairs % count, member.shape[1], np.arange(count) >= member.shape[1])


def proportional_splits(
    unit: np.ndarray, draws: np.ndarray, shares: np.ndarray, found: Margins, fixed: np.ndarray
) -> np.ndarray:
    """Return the (U,) int8 splits of U units.

    `unit` (N,) is the unit of each image, -1 if nothing is drawn for it; `draws` (U,) are the units' hashes, `shares`
    (U, 3) their shares of train, val and test, `found` the margins of the images. `fixed` (N,) holds the split of
    images that are not drawn: a class with a fixed training image needs no other.
    """
    trained = np.zeros(len(found.is_class), bool)
    trained[found.margin[fixed[found.image] == TRAIN]] = True
    drawn = unit[found.image] >= 0
    # (unit, margin) pairs, each once, with the number of images
    pairs, counts = np.unique(unit[found.image[drawn]] * len(trained) + found.margin[drawn], return_counts=True)
    divisible = np.bincount(pairs % len(trained), minlength=len(trained)) > 1  # a class of one unit cannot be divided
    divisible[: found.num_sources] = True
    pairs, counts = pairs[divisible[pairs % len(trained)]], counts[divisible[pairs % len(trained)]]
    sizes = np.bincount(unit[unit >= 0], minlength=len(draws))
    strata = _Strata(len(draws), pairs // len(trained), pairs % len(trained), counts, shares, sizes)
    splits = _divide(strata, _Balance(strata, found, trained), draws)
    _fill_empty(splits, draws, shares, strata, found, fixed)
    return splits


def _divide(strata: _Strata, balance: _Balance, draws: np.ndarray) -> np.ndarray:
    """Return the (U,) splits of the units: how many of a stratum by `balance`, which ones by their hashes."""
    sizes = strata.sizes
    order = np.lexsort((draws, -sizes, strata.of_unit))  # a stratum's units in a row, the largest first, then by hash
    stratum = strata.of_unit[order]
    start = np.flatnonzero(np.diff(stratum, prepend=-1))
    num_large = np.add.reduceat((sizes > 1)[order], start, dtype=np.int64)
    splits, numbers = np.empty(len(draws), np.int8), np.empty((len(start), len(ORDER)), np.int64)
    ends = [*start[1:].tolist(), len(order)]
    for row, (first, large, end) in enumerate(zip(start.tolist(), (start + num_large).tolist(), ends, strict=True)):
        splits[order[first:large]] = balance.place_large(order[first:large].tolist(), int(order[first]), end - large)
        numbers[row] = balance.count_singles()
    rank = np.arange(len(order)) - (start + num_large)[stratum]
    upto = np.cumsum(numbers[:, ORDER], axis=1)[stratum]
    singles = rank >= 0
    splits[order[singles]] = np.array(ORDER, np.int8)[(rank[:, None] >= upto).sum(1)[singles]]
    return splits


def _fill_empty(
    splits: np.ndarray, draws: np.ndarray, shares: np.ndarray, strata: _Strata, found: Margins, fixed: np.ndarray
) -> None:
    """Move a training unit into each empty split of a source with three or more units, if its classes keep another."""
    num_train = np.bincount(found.margin[fixed[found.image] == TRAIN], minlength=len(found.is_class))
    np.add.at(num_train, strata.margin, np.where(splits[strata.unit] == TRAIN, strata.counts, 0))
    for source in range(found.num_sources):
        own = strata.unit[strata.margin == source]
        present = {*splits[own].tolist(), *fixed[found.image[found.margin == source]].tolist()}
        for split in (TEST, VAL):
            if len(own) < 3 or split in present or not shares[own, split].any():
                continue
            for unit in own[np.argsort(draws[own])].tolist():
                margins_of, counts = strata.of(unit)
                needed = [(m, c) for m, c in zip(margins_of, counts, strict=True) if m == source or found.is_class[m]]
                if splits[unit] == TRAIN and shares[unit, split] and all(num_train[m] > c for m, c in needed):
                    splits[unit] = split
                    num_train[margins_of] -= counts
                    break


class _Strata:
    """Numbers the units by stratum, in the order of their margins and shares, and holds each unit's margins."""

    def __init__(
        self,
        num_units: int,
        unit: np.ndarray,
        margin: np.ndarray,
        counts: np.ndarray,
        shares: np.ndarray,
        sizes: np.ndarray,
    ) -> None:
        self.unit, self.margin, self.counts, self.shares, self.sizes = unit, margin, counts, shares, sizes
        self.start = np.searchsorted(unit, np.arange(num_units + 1))
        code, lengths = np.zeros(num_units, np.int64), np.diff(self.start)
        for position in range(lengths.max(initial=0)):
            has = lengths > position
            following = np.full(num_units, 0)
            following[has] = 1 + margin[self.start[:-1][has] + position]
            code = np.unique(code * (following.max() + 1) + following, return_inverse=True)[1]
        for column in (TEST, VAL):
            value = np.unique(shares[:, column], return_inverse=True)[1]
            code = np.unique(code * (value.max(initial=0) + 1) + value, return_inverse=True)[1]
        self.of_unit = code
        # strata by margin: a class that is all in one stratum is in proportion if the stratum is
        of_pair = np.unique(code[unit] * (margin.max(initial=0) + 1) + margin)
        self.num_of_margin = np.bincount(of_pair % (margin.max(initial=0) + 1))

    def of(self, unit: int) -> tuple[list[int], list[int]]:
        """Return a unit's margins, and how many of its images count in each."""
        here = slice(self.start[unit], self.start[unit + 1])
        return self.margin[here].tolist(), self.counts[here].tolist()


class _Balance:
    """Divides one stratum after the other and keeps count of the images that each margin's splits still lack."""

    def __init__(self, strata: _Strata, found: Margins, trained: np.ndarray) -> None:
        self.strata, self.trained = strata, (trained | ~found.is_class).tolist()
        self.num_left = strata.num_of_margin.tolist()  # strata still to be divided
        self.scored = [m < found.num_sources or n > 1 for m, n in enumerate(self.num_left)]
        self.lags: list[Lag] = [[0.0, 0.0, 0.0] for _ in found.is_class]

    def place_large(self, units: list[int], first: int, num_singles: int) -> list[int]:
        """Begin a stratum: return the splits of its `units` of several images, the largest first.

        `first` is one of all of its units, `num_singles` the number of those of one image.
        """
        self.own, self.num_singles, self.share = (
            self.strata.of(first)[0],
            num_singles,
            self.strata.shares[first].tolist(),
        )
        self.lacking = [share * num_singles for share in self.share]
        large = [(*self.strata.of(unit), int(self.strata.sizes[unit])) for unit in units]
        for margin in self.own:
            self.num_left[margin] -= 1
        for own, counts, size in large:
            self._add(own, counts)
            self.lacking = [lacking + share * size for lacking, share in zip(self.lacking, self.share, strict=True)]
        self._add(self.own, [num_singles] * len(self.own))
        return [self._place(*unit) for unit in large]

    def _place(self, own: list[int], counts: list[int], size: int) -> int:
        """Return the split of a unit of several images."""
        split = TRAIN if self._needs_training(own) else self._most_lacking(self._score(own), self.share)
        self.lacking[split] -= size
        self._take(own, counts, split)
        return split

    def count_singles(self) -> list[int]:
        """End a stratum: return how many of its units of one image go to train, val and test."""
        numbers = rounded_down(self.lacking, self.num_singles)
        num_scored = sum(self.scored[m] for m in self.own)
        score = [value - num_scored * number for value, number in zip(self._score(self.own), numbers, strict=True)]
        rest, allowed = self.num_singles - sum(numbers), list(self.share)
        if self.num_singles and not numbers[TRAIN] and self._needs_training(self.own):
            if not rest:
                numbers[max((VAL, TEST), key=lambda split: numbers[split])] -= 1
                rest = 1
            numbers[TRAIN], allowed[TRAIN], rest = 1, 0.0, rest - 1
        for _ in range(rest):
            split = self._most_lacking(score, allowed)
            numbers[split], allowed[split] = numbers[split] + 1, 0.0
        for split in ORDER:
            self._take(self.own, [numbers[split]] * len(self.own), split)
        return numbers

    def _add(self, own: Sequence[int], counts: Sequence[int]) -> None:
        for margin, count in zip(own, counts, strict=True):
            self.lags[margin] = [lag + count * s for lag, s in zip(self.lags[margin], self.share, strict=True)]

    def _needs_training(self, own: Sequence[int]) -> bool:
        """Return True in the last stratum with a class that has no training image yet."""
        return not all(self.trained[margin] or self.num_left[margin] for margin in own)

    def _score(self, own: Sequence[int]) -> Lag:
        scored = [self.lags[margin] for margin in own if self.scored[margin]]
        return [sum(column) for column in zip(*scored, strict=True)]

    def _take(self, own: Sequence[int], counts: Sequence[int], split: int) -> None:
        for margin, count in zip(own, counts, strict=True):
            self.lags[margin][split] -= count
            self.trained[margin] |= split == TRAIN and count > 0

    @staticmethod
    def _most_lacking(score: Lag, allowed: Lag) -> int:
        return max((s for s in ORDER if allowed[s] > 0), key=lambda s: round(score[s], DIGITS))


def rounded_down(lacking: Sequence[float], count: int) -> list[int]:
    """Return how many of `count` images each split gets for certain: what it lacks, rounded down.

    A split that already has too many gets none, and the others share the difference equally. The sum is `count`, or up
    to two less.
    """
    largest = sorted(lacking, reverse=True)
    level = 0.0
    for number in (3, 2, 1):
        level = (sum(largest[:number]) - count) / number
        if round(largest[number - 1] - level, DIGITS) >= 0:
            break
    return [max(0, math.floor(round(value - level, DIGITS))) for value in lacking]

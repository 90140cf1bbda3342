"""Which side an image is on: drawn from what the image is, never from its place in a list.

A unit of images that must stay together (one group, exact duplicates, near ones on request) is put on one side by a
keyed hash of its smallest name and the seed, so adding or removing other images moves nothing. The one exception: a
class that this leaves without a training image gets a unit back, as nobody can be tested on what none was taught.
"""
# N images, n of them with a class

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vision_mtl.core.errors import UserError

TRAIN, VAL, TEST, DROPPED, UNSET = 0, 1, 2, -1, -2


def units(links: Sequence[np.ndarray]) -> np.ndarray:
    """Several labellings of N images (equal values belong together) -> (N,) int64, the units that satisfy all."""
    count = len(links[0])
    rows, columns = [], []
    for link in links:
        _, first, inverse = np.unique(link, return_index=True, return_inverse=True)
        rows.append(np.arange(count))
        columns.append(first[inverse])
    ones = np.ones(count * len(links), bool)
    graph = coo_matrix((ones, (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def assign_sides(
    names: Sequence[str], unit: np.ndarray, given: np.ndarray, *, val_ratio: float, test_ratio: float, seed: int
) -> np.ndarray:
    """(N,) int8 sides of one source's images.

    `given` (N,) holds official sides, or `UNSET`. What is not given is drawn: where the source says nothing of test,
    val and test are taken; where it brings a test side but none for validation, val alone is taken out of train; where
    it brings both, nothing. Of three units or more, no side that is asked for stays empty.
    Raises `UserError` for ratios that leave nothing.
    """
    for name, ratio in (("val_ratio", val_ratio), ("test_ratio", test_ratio)):
        if not 0 <= ratio < 1:
            raise UserError(f"data.{name} must lie in [0, 1); found {ratio}.")
    if val_ratio + test_ratio >= 1:
        raise UserError(f"data.val_ratio {val_ratio} and data.test_ratio {test_ratio} leave nothing to train on.")
    has_test, has_val = bool((given == TEST).any()), bool((given == VAL).any())
    shares = {TEST: 0.0 if has_test else test_ratio, VAL: 0.0 if has_val else val_ratio}
    side = given.copy().astype(np.int8)
    free = (given == UNSET) | ((given == TRAIN) & (not has_val or not has_test))
    taken = np.isin(unit, unit[(given == TEST) | (given == VAL)])  # a unit with an official side is not drawn
    ids, draws = _draw_units(names, unit, free & ~taken, seed)
    drawn = np.where(draws < shares[TEST], TEST, np.where(draws < shares[TEST] + shares[VAL], VAL, TRAIN))
    drawn = _fill_empty(drawn, draws, [s for s in (TEST, VAL) if shares[s] > 0])
    table = dict(zip(ids.tolist(), drawn.tolist(), strict=True))
    for i in np.flatnonzero(free & ~taken):
        side[i] = table[int(unit[i])]
    side[side == UNSET] = TRAIN
    return side


def return_classes_to_train(
    split: np.ndarray,
    unit: np.ndarray,
    drawn: np.ndarray,
    names: Sequence[str],
    occurrences: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> np.ndarray:
    """(N,) int8 sides on which every class has a training image, as far as drawn sides allow.

    `drawn` (N,) bool: the image's side was drawn, not given; a unit moves whole, and only if all its images are such.
    `occurrences` has, for each task in an order that does not follow the user's, ((n,) image, (n,) class). The rarest
    class goes first; of its units the one of largest draw moves, which is on validation if any is.
    """
    split = split.copy()
    fixed = np.zeros(unit.max() + 1, bool)
    fixed[unit[~drawn]] = True
    lacking = []
    for task, (rows, classes) in enumerate(occurrences):
        for k in np.setdiff1d(classes, classes[split[rows] == TRAIN]):
            shown = rows[classes == k]
            lacking.append((len(np.unique(unit[shown])), task, int(k), shown))
    for *_, shown in sorted(lacking, key=lambda entry: entry[:3]):
        members = np.isin(unit, unit[shown]) & ~fixed[unit]
        if members.any() and not (split[shown] == TRAIN).any():  # it may have come with a rarer class
            ids, draws = _draw_units(names, unit, members, seed)
            split[unit == ids[np.argmax(draws)]] = TRAIN
    return split


def _draw_units(names: Sequence[str], unit: np.ndarray, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(units, a number in [0, 1) for each), from the smallest name in the unit and the seed."""
    smallest: dict[int, str] = {}
    for i in np.flatnonzero(rows).tolist():
        key = int(unit[i])
        smallest[key] = min(smallest.get(key, names[i]), names[i])
    ids = np.array(sorted(smallest), np.int64)
    return ids, np.array([_uniform(smallest[int(i)], seed) for i in ids])


def _uniform(name: str, seed: int) -> float:
    digest = hashlib.blake2b(name.encode(), key=str(seed).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _fill_empty(drawn: np.ndarray, draws: np.ndarray, wanted: list[int]) -> np.ndarray:
    """Give each wanted side that came out empty the unit of smallest draw that the other sides can spare."""
    if len(drawn) >= 3:
        for side in [*wanted, TRAIN]:
            if not (drawn == side).any():
                counts = np.bincount(drawn, minlength=3)
                spare = np.flatnonzero(counts[drawn] > 1)
                drawn[spare[np.argmin(draws[spare])]] = side
    return drawn

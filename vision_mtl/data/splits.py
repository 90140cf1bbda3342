"""Units of images that stay together, their keyed hashes, and the rule that draws each unit independently.

Images that must stay together (a group, exact duplicates, near duplicates on request) form a unit. A keyed hash of the
unit's smallest name and the seed orders the units, so splits depend on names, not on positions in a list. By the
independent rule (`data.split_rule`) a unit's hash alone chooses its split, so adding or removing other images moves
nothing, but shares vary by chance. The one exception: a class without a training image gets a unit back from validation
or test, because a model cannot be tested on a class that it was never trained on.
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
    """Return (N,) int64 unit numbers: images that are equal in any of the `links` (N,) share a unit."""
    count = len(links[0])
    rows, columns = [], []
    for link in links:
        _, first, inverse = np.unique(link, return_index=True, return_inverse=True)
        rows.append(np.arange(count))
        columns.append(first[inverse])
    ones = np.ones(count * len(links), bool)
    graph = coo_matrix((ones, (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def check_ratios(val_ratio: float, test_ratio: float) -> None:
    """Raise `UserError` for ratios out of range or that leave no training image."""
    for name, ratio in (("val_ratio", val_ratio), ("test_ratio", test_ratio)):
        if not 0 <= ratio < 1:
            raise UserError(f"data.{name} must lie in [0, 1); found {ratio}.")
    if val_ratio + test_ratio >= 1:
        raise UserError(f"data.val_ratio {val_ratio} and data.test_ratio {test_ratio} leave nothing to train on.")


def independent_splits(
    names: Sequence[str], unit: np.ndarray, given: np.ndarray, *, val_ratio: float, test_ratio: float, seed: int
) -> np.ndarray:
    """Return the (N,) int8 splits of one source's images.

    `given` (N,) holds official splits, or `UNSET`. A source without an official test split gets a drawn test and val
    split; one with test but no val gets val drawn from train; with both, nothing is drawn. With three or more units, no
    split with a ratio above 0 stays empty.
    """
    has_test, has_val = bool((given == TEST).any()), bool((given == VAL).any())
    shares = {TEST: 0.0 if has_test else test_ratio, VAL: 0.0 if has_val else val_ratio}
    split = given.copy().astype(np.int8)
    free = (given == UNSET) | ((given == TRAIN) & (not has_val or not has_test))
    official = np.isin(unit, unit[(given == TEST) | (given == VAL)])  # units with an official split are not drawn
    ids, draws = draw_units(names, unit, free & ~official, seed)
    drawn = np.where(draws < shares[TEST], TEST, np.where(draws < shares[TEST] + shares[VAL], VAL, TRAIN))
    drawn = _fill_empty(drawn, draws, [s for s in (TEST, VAL) if shares[s] > 0])
    table = dict(zip(ids.tolist(), drawn.tolist(), strict=True))
    for i in np.flatnonzero(free & ~official):
        split[i] = table[int(unit[i])]
    split[split == UNSET] = TRAIN
    return split


def return_classes_to_train(
    split: np.ndarray,
    unit: np.ndarray,
    drawn: np.ndarray,
    names: Sequence[str],
    occurrences: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> np.ndarray:
    """Return (N,) int8 splits in which every class has a training image, as far as drawn splits allow.

    `drawn` (N,) bool: the image's split was drawn, not given; a unit moves as a whole, and only if all of its images
    were drawn. `occurrences` has ((n,) image, (n,) class) for each task, in an order that does not depend on the
    user's. The rarest class is served first; of its units the one with the largest draw moves, which is in validation
    if any is.
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
        if members.any() and not (split[shown] == TRAIN).any():  # a unit moved for a rarer class may contain it
            ids, draws = draw_units(names, unit, members, seed)
            split[unit == ids[np.argmax(draws)]] = TRAIN
    return split


def draw_units(names: Sequence[str], unit: np.ndarray, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (unit numbers, a draw in [0, 1) for each), from the unit's smallest name and the seed."""
    smallest: dict[int, str] = {}
    for i in np.flatnonzero(rows).tolist():
        key = int(unit[i])
        smallest[key] = min(smallest.get(key, names[i]), names[i])
    ids = np.array(sorted(smallest), np.int64)
    return ids, np.array([_uniform(smallest[int(i)], seed) for i in ids])


def _uniform(name: str, seed: int) -> float:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=str(seed).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _fill_empty(drawn: np.ndarray, draws: np.ndarray, wanted: list[int]) -> np.ndarray:
    """Move the unit with the smallest draw that other splits can spare into each wanted split that is empty."""
    if len(drawn) >= 3:
        for split in [*wanted, TRAIN]:
            if not (drawn == split).any():
                counts = np.bincount(drawn, minlength=3)
                spare = np.flatnonzero(counts[drawn] > 1)
                drawn[spare[np.argmin(draws[spare])]] = split
    return drawn

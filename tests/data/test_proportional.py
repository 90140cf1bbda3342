"""Splits in proportion: to within one image in each class, whatever the order and place of the files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vision_mtl.data.proportional import margins, proportional_splits, rounded_down
from vision_mtl.data.splits import TEST, TRAIN, UNSET, VAL, draw_units

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=15)
# val and test shares that leave something to train on
RATIOS = st.tuples(st.sampled_from([0, 5, 10, 15, 25, 33, 40]), st.sampled_from([0, 1, 10, 20, 30, 50])).map(
    lambda pair: (pair[0] / 100, pair[1] / 100)
)
SEEDS = st.integers(0, 1000)


def divide(
    *columns: Sequence[int] | np.ndarray,
    ratios: tuple[float, float] = (0.1, 0.2),
    seed: int = 0,
    unit: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    member: np.ndarray | None = None,
) -> np.ndarray:
    """Draw (val, test) ratios of images of one source, or of those in `member` (N, S), named by their numbers.

    `columns` are their classes, -1 for none.
    """
    count = len(columns[0])
    unit = np.arange(count) if unit is None else unit
    names = [f"image {n}" for n in range(count)] if names is None else names
    ids, draws = draw_units(names, unit, np.ones(count, bool), seed)
    shares = np.tile([1 - sum(ratios), *ratios], (len(ids), 1))
    member = np.ones((count, 1), bool) if member is None else member
    rows = [np.flatnonzero(np.array(column) >= 0) for column in columns]
    found = margins(member, [(row, np.array(column)[row]) for row, column in zip(rows, columns, strict=True)])
    number = np.searchsorted(ids, unit)
    return proportional_splits(number, draws, shares, found, np.full(count, UNSET, np.int8))[number]


def deviation(splits: np.ndarray, ratios: tuple[float, float]) -> float:
    """The largest difference between the number of images of a split and its share."""
    return float(np.abs(np.bincount(splits, minlength=3) - len(splits) * np.array([1 - sum(ratios), *ratios])).max())


def test_balanced_images_are_divided_exactly() -> None:
    """300 images of two classes gave 230, 18 and 52 by independent draws, with 14 and 4 for validation."""
    classes = np.arange(300) % 2
    splits = divide(classes)
    assert np.bincount(splits).tolist() == [210, 30, 60]
    assert [np.bincount(splits[classes == k]).tolist() for k in (0, 1)] == [[105, 15, 30]] * 2


@settings(deadline=None, max_examples=400)
@given(SIZES, RATIOS, SEEDS)
def test_each_class_and_the_source_are_within_one_image(
    sizes: list[int], ratios: tuple[float, float], seed: int
) -> None:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    splits = divide(classes, ratios=ratios, seed=seed)
    lifted = 0  # classes that get a training image beyond their share
    for number, size in enumerate(sizes):
        own = splits[classes == number]
        assert (own == TRAIN).any() or size == 1
        lifted += size * (1 - sum(ratios)) < 1
    for ratio, split in zip(ratios, (VAL, TEST), strict=True):
        assert ratio > 0 or not (splits == split).any()
        assume(ratio == 0 or ratio * len(classes) >= 1)  # an empty split is filled, see below
    assert max(deviation(splits[classes == number], ratios) for number in range(len(sizes))) <= 1 + 1e-9
    assert deviation(splits, ratios) < 1 + lifted + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), RATIOS, SEEDS, st.randoms())
def test_order_does_not_matter(classes: list[int], ratios: tuple[float, float], seed: int, random) -> None:
    order = list(range(len(classes)))
    random.shuffle(order)
    names = [f"image {n}" for n in order]
    drawn = divide(classes, ratios=ratios, seed=seed)
    again = divide(np.array(classes)[order], ratios=ratios, seed=seed, names=names)
    assert np.array_equal(again, drawn[order])


@settings(deadline=None)
@given(SIZES, st.integers(2, 8), RATIOS, SEEDS)
def test_groups_stay_together_within_a_bound(
    sizes: list[int], largest: int, ratios: tuple[float, float], seed: int
) -> None:
    """A class of several groups is within three times its largest group, the source within two, apart from classes that
    need a group for training."""
    classes = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(classes))
    unit = np.unique(classes * 1000 + rows // largest, return_inverse=True)[1]  # a group is of one class
    splits = divide(classes, ratios=ratios, seed=seed, unit=unit)
    for one in np.unique(unit):
        assert len(set(splits[unit == one].tolist())) == 1
    groups = [len(np.unique(unit[classes == k])) for k in range(len(sizes))]
    assert all((splits[classes == k] == TRAIN).any() for k in range(len(sizes)) if groups[k] > 1)
    assume(min(groups) * (1 - sum(ratios)) >= 1 and len(classes) * min(r or 1 for r in ratios) >= largest)
    assert all(deviation(splits[classes == k], ratios) <= 3 * largest + 1e-9 for k in range(len(sizes)))
    assert deviation(splits, ratios) <= 2 * largest + 1e-9


def test_columns_that_name_the_groups_change_nothing() -> None:
    """A person's name and birthday are not divided, so they must not draw every person to training."""
    unit = np.arange(300) // 3
    classes = unit % 2
    splits = divide(classes, unit=unit)
    assert [np.bincount(splits[classes == k]).tolist() for k in (0, 1)] == [[105, 15, 30]] * 2
    assert np.array_equal(divide(classes, unit, 99 - unit, unit=unit), splits)


def test_a_unit_of_several_classes_counts_in_each() -> None:
    unit = np.arange(400) // 2
    classes = np.arange(400) % 2  # every unit holds both classes
    splits = divide(classes, unit=unit)
    assert [np.bincount(splits[classes == k]).tolist() for k in (0, 1)] == [[140, 20, 40]] * 2


@settings(deadline=None)
@given(st.integers(3, 60), SEEDS)
def test_no_split_is_empty_from_three_units_on(count: int, seed: int) -> None:
    assert set(divide([0] * count, seed=seed).tolist()) == {TRAIN, VAL, TEST}


@pytest.mark.parametrize("numbers", [(10, 10, 300), (20, 20, 300), (8, 180, 1600)])
def test_two_tasks_on_the_same_images_are_both_in_proportion(numbers: tuple[int, int, int]) -> None:
    first, second, count = numbers
    for seed in range(5):
        random = np.random.default_rng(seed)
        classes = [random.integers(0, first, count), random.integers(0, second, count)]
        splits = divide(*classes, seed=seed)
        assert deviation(splits, (0.1, 0.2)) <= 1 + 1e-9
        for own in classes:
            found = [own == k for k in np.unique(own)]
            assert max(deviation(splits[rows], (0.1, 0.2)) for rows in found) < 4
            assert all((splits[rows] == TRAIN).any() for rows in found)


def test_images_without_a_label_are_a_class_of_their_own() -> None:
    classes = np.where(np.arange(300) < 100, 0, np.where(np.arange(300) < 200, 1, -1))
    splits = divide(classes)
    assert [np.bincount(splits[classes == k]).tolist() for k in (-1, 0, 1)] == [[70, 10, 20]] * 3


def test_sources_that_overlap_are_both_in_proportion() -> None:
    member = np.zeros((300, 2), bool)
    member[:200, 0] = member[100:, 1] = True
    splits = divide(np.zeros(300, int), member=member)
    assert [np.bincount(splits[member[:, s]]).tolist() for s in (0, 1)] == [[140, 20, 40]] * 2


def test_another_source_moves_nothing() -> None:
    classes = np.random.default_rng(0).integers(0, 7, 331)
    member = np.zeros((331, 2), bool)
    member[:200, 0] = member[200:, 1] = True
    both = divide(np.where(member[:, 0], classes, -1), member=member)
    assert np.array_equal(both[:200], divide(classes[:200]))


def test_seeds_differ_and_one_more_image_moves_few() -> None:
    classes = np.arange(1000) % 10
    splits = divide(classes)
    assert 0.2 < np.mean(splits != divide(classes, seed=1)) < 0.6
    more = divide(np.append(classes, 0))
    assert (more[:1000] != splits).sum() <= 20


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 60))
def test_rounding_down_leaves_at_most_two(lacking: list[float], count: int) -> None:
    lacking[0] += count - sum(lacking)
    numbers = rounded_down(lacking, count)
    assert min(numbers) >= 0 and count - 2 <= sum(numbers) <= count

"""The independent rule: splits depend on an image's name; order and other images change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.splits import (
    TEST,
    TRAIN,
    UNSET,
    VAL,
    check_ratios,
    independent_splits,
    return_classes_to_train,
    units,
)

NAMES = st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=1, max_size=60, unique=True)


def draw(names: list[str], unit: np.ndarray | None = None, official: np.ndarray | None = None, **options) -> np.ndarray:
    unit = np.arange(len(names)) if unit is None else unit
    official = np.full(len(names), UNSET, np.int8) if official is None else official
    return independent_splits(names, unit, official, **{"val_ratio": 0.1, "test_ratio": 0.2, "seed": 0, **options})


@settings(deadline=None)
@given(NAMES, st.randoms())
def test_order_does_not_matter(names: list[str], random) -> None:
    order = list(range(len(names)))
    random.shuffle(order)
    assert np.array_equal(draw([names[i] for i in order]), draw(names)[order])


@settings(deadline=None)
@given(st.integers(60, 200), st.integers(1, 30))
def test_other_images_move_nothing(count: int, more: int) -> None:
    names = [f"image {i}" for i in range(count + more)]
    assert np.array_equal(draw(names)[:count], draw(names[:count]))


@settings(deadline=None)
@given(NAMES, st.integers(1, 10), st.integers(0, 5))
def test_units_stay_together(names: list[str], divisor: int, seed: int) -> None:
    unit = np.arange(len(names)) // divisor
    splits = draw(names, unit, seed=seed)
    for one in np.unique(unit):
        assert len(set(splits[unit == one].tolist())) == 1


@settings(deadline=None)
@given(st.integers(3, 60), st.integers(0, 50))
def test_no_split_is_empty_from_three_units_on(count: int, seed: int) -> None:
    splits = draw([f"{i}" for i in range(count)], seed=seed)
    assert set(splits.tolist()) == {TRAIN, VAL, TEST}


def test_shares_are_as_asked() -> None:
    splits = draw([f"{i}" for i in range(20_000)], val_ratio=0.15, test_ratio=0.25)
    assert np.mean(splits == TEST) == pytest.approx(0.25, abs=0.01)
    assert np.mean(splits == VAL) == pytest.approx(0.15, abs=0.01)


def test_seeds_differ() -> None:
    names = [f"{i}" for i in range(1000)]
    assert 0.2 < np.mean(draw(names) != draw(names, seed=1)) < 0.6


def test_an_official_test_split_is_kept_and_val_is_drawn_from_train() -> None:
    names = [f"{i}" for i in range(1000)]
    official = np.where(np.arange(1000) < 300, TEST, TRAIN).astype(np.int8)
    splits = draw(names, official=official)
    assert np.array_equal(splits == TEST, official == TEST)
    assert np.mean(splits[300:] == VAL) == pytest.approx(0.1, abs=0.03)


def test_with_all_three_given_nothing_is_drawn() -> None:
    official = np.array([TRAIN, VAL, TEST] * 20, np.int8)
    assert np.array_equal(draw([f"{i}" for i in range(60)], official=official), official)


def test_ratios_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.val_ratio must lie in \[0, 1\); found 1\.5"):
        check_ratios(1.5, 0.2)
    with pytest.raises(UserError, match="leave nothing to train on"):
        check_ratios(0.5, 0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_units_satisfy_every_link(pairs: list[tuple[int, int]]) -> None:
    links = [np.array(column) for column in zip(*pairs, strict=True)]
    unit = units(links)
    for link in links:
        for value in np.unique(link):
            assert len(np.unique(unit[link == value])) == 1
    # and joins nothing else: walk the graph by hand
    for start in range(len(pairs)):
        reached, frontier = {start}, {start}
        while frontier:
            frontier = {
                j
                for i in frontier
                for j in range(len(pairs))
                if any(link[i] == link[j] for link in links) and j not in reached
            }
            reached |= frontier
        assert reached == set(np.flatnonzero(unit == unit[start]).tolist())


CLASSES = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def returned(classes: list[int], split: np.ndarray, drawn: np.ndarray, unit: np.ndarray | None = None) -> np.ndarray:
    rows = np.arange(len(classes))
    unit = rows if unit is None else unit
    names = [f"image {i}" for i in rows]
    return return_classes_to_train(split, unit, drawn, names, [(rows, np.array(classes))], seed=0)


@settings(deadline=None)
@given(CLASSES, st.integers(1, 4), st.integers(0, 20))
def test_every_class_has_a_training_image(classes: list[int], divisor: int, seed: int) -> None:
    names = [f"image {i}" for i in range(len(classes))]
    unit = np.arange(len(classes)) // divisor
    split = draw(names, unit, seed=seed, test_ratio=0.5, val_ratio=0.3)
    found = returned(classes, split, np.ones(len(classes), bool), unit)
    assert set(np.array(classes)[found == TRAIN].tolist()) == set(classes)
    moved = np.flatnonzero(found != split)
    assert (found[moved] == TRAIN).all()
    assert len(set(unit[moved].tolist())) <= len(set(classes)), "more units moved than classes were missing"
    for one in np.unique(unit):
        assert len(set(found[unit == one].tolist())) == 1


@settings(deadline=None)
@given(CLASSES, st.randoms())
def test_returned_units_do_not_depend_on_the_order(classes: list[int], random) -> None:
    count = len(classes)
    names = [f"image {i}" for i in range(count)]
    split = draw(names, test_ratio=0.5, val_ratio=0.3)
    order = list(range(count))
    random.shuffle(order)
    rows, drawn = np.arange(count), np.ones(count, bool)
    found = return_classes_to_train(split, rows, drawn, names, [(rows, np.array(classes))], 0)
    again = return_classes_to_train(
        split[order], rows, drawn, [names[i] for i in order], [(rows, np.array(classes)[order])], 0
    )
    assert np.array_equal(again, found[order])


def test_one_unit_comes_back_from_validation_before_test() -> None:
    names, drawn = [f"image {i}" for i in range(200)], np.ones(200, bool)
    split = draw(names)
    rare = [int(np.flatnonzero(split == held_out)[n]) for held_out in (TEST, VAL) for n in (0, 1)]
    classes = np.zeros(200, int)
    classes[rare] = 1
    found = returned(classes.tolist(), split, drawn)
    (moved,) = np.flatnonzero(found != split)
    assert moved in rare[2:]


def test_official_splits_do_not_move() -> None:
    split = np.array([TRAIN, TEST, TEST, VAL], np.int8)
    drawn = np.array([True, False, False, False])
    assert np.array_equal(returned([0, 1, 1, 1], split, drawn), split)
    # a unit of which one image is official stays where it is, the other unit comes
    found = returned([0, 1, 1, 1], split, np.array([True, False, True, True]), unit=np.array([0, 1, 1, 2]))
    assert found.tolist() == [TRAIN, TEST, TEST, TRAIN]


def test_a_unit_that_brings_two_classes_is_moved_once() -> None:
    split = np.array([TRAIN, TEST, VAL, TEST], np.int8)
    occurrences = [(np.arange(4), np.array([0, 1, 2, 1])), (np.array([1, 2]), np.array([0, 0]))]
    found = return_classes_to_train(split, np.arange(4), np.ones(4, bool), list("abcd"), occurrences, seed=0)
    assert found[2] == TRAIN and sorted(found.tolist()).count(TRAIN) == 3

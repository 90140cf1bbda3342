"""Sides are drawn from what an image is: order, company and other images change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.splits import TEST, TRAIN, UNSET, VAL, assign_sides, units

NAMES = st.lists(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=1, max_size=60, unique=True)


def draw(
    names: list[str], unit: np.ndarray | None = None, given_sides: np.ndarray | None = None, **options
) -> np.ndarray:
    unit = np.arange(len(names)) if unit is None else unit
    given_sides = np.full(len(names), UNSET, np.int8) if given_sides is None else given_sides
    return assign_sides(names, unit, given_sides, **{"val_ratio": 0.1, "test_ratio": 0.2, "seed": 0, **options})


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
    sides = draw(names, unit, seed=seed)
    for one in np.unique(unit):
        assert len(set(sides[unit == one].tolist())) == 1


@settings(deadline=None)
@given(st.integers(3, 60), st.integers(0, 50))
def test_no_side_is_empty_from_three_units_on(count: int, seed: int) -> None:
    sides = draw([f"{i}" for i in range(count)], seed=seed)
    assert set(sides.tolist()) == {TRAIN, VAL, TEST}


def test_shares_are_as_asked() -> None:
    sides = draw([f"{i}" for i in range(20_000)], val_ratio=0.15, test_ratio=0.25)
    assert np.mean(sides == TEST) == pytest.approx(0.25, abs=0.01)
    assert np.mean(sides == VAL) == pytest.approx(0.15, abs=0.01)


def test_seeds_differ() -> None:
    names = [f"{i}" for i in range(1000)]
    assert 0.2 < np.mean(draw(names) != draw(names, seed=1)) < 0.6


def test_an_official_test_side_is_kept_and_val_comes_out_of_train() -> None:
    names = [f"{i}" for i in range(1000)]
    official = np.where(np.arange(1000) < 300, TEST, TRAIN).astype(np.int8)
    sides = draw(names, given_sides=official)
    assert np.array_equal(sides == TEST, official == TEST)
    assert np.mean(sides[300:] == VAL) == pytest.approx(0.1, abs=0.03)


def test_with_all_three_given_nothing_is_drawn() -> None:
    official = np.array([TRAIN, VAL, TEST] * 20, np.int8)
    assert np.array_equal(draw([f"{i}" for i in range(60)], given_sides=official), official)


def test_ratios_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.val_ratio must lie in \[0, 1\); found 1\.5"):
        draw(["a"], val_ratio=1.5)
    with pytest.raises(UserError, match="leave nothing to train on"):
        draw(["a"], val_ratio=0.5, test_ratio=0.5)


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

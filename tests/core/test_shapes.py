"""Image sizes as users write them, and grids that tile."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.core.shapes import cell_edges, parse_image_size


@pytest.mark.parametrize("value", [64, "64", [64], (64, 64), "64,64", "64x64", "[64, 64]", "(64,64)"])
def test_square_sizes(value: object) -> None:
    assert parse_image_size(value) == (64, 64)


def test_height_comes_first() -> None:
    assert parse_image_size("48,64") == (48, 64)


@pytest.mark.parametrize("value", ["", "big", "64,64,3", 4, "7,64", None, [], "-64"])
def test_a_bad_size_is_named(value: object) -> None:
    with pytest.raises(UserError, match="image_size"):
        parse_image_size(value)


@given(st.integers(1, 500).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length))))
def test_cells_tile_and_differ_by_at_most_one_pixel(case: tuple[int, int]) -> None:
    length, cells = case
    edges = cell_edges(length, cells)
    sides = [b - a for a, b in itertools.pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == length and len(sides) == cells
    assert min(sides) >= 1 and max(sides) - min(sides) <= 1


def test_more_cells_than_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="1 to 3 cells"):
        cell_edges(3, 4)

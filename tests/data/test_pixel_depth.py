"""Deep values become levels of one range; 8 bits stay as they are."""

import numpy as np
import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.data.depth import DeepImage, Raw, ValueRange, floats, stacked, to_levels, widened


def levels(values: object, value_range: object, kind: str = "f8") -> list[int]:
    array = np.asarray(values, kind).reshape(1, -1, 1)
    return to_levels(Raw(array, None), value_range).ravel().tolist()


def test_eight_bits_are_not_copied() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert to_levels(Raw(pixels, 255), ValueRange(0, 5)) is pixels


@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "u4", "i8", "f4", "f8"])
def test_the_range_becomes_all_levels_and_the_rest_is_clipped(kind: str) -> None:
    assert levels([0, 10, 20, 110, 120], ValueRange(10, 110), kind) == [0, 0, 6554, 65535, 65535]


def test_an_image_and_its_double_differ() -> None:
    assert levels([1, 2, 3], ValueRange(0, 100)) != levels([2, 4, 6], ValueRange(0, 100))


def test_numbers_that_are_not_finite_become_the_ends() -> None:
    assert levels([np.nan, -np.inf, np.inf, 0.5], ValueRange(0, 1)) == [0, 0, 65535, 32768]


def test_large_integers_keep_their_differences() -> None:
    assert levels([1 << 31, (1 << 31) + 1], ValueRange(1 << 31, (1 << 31) + 2), "i8") == [0, 32768]


def test_a_declared_maximum_is_full_scale_and_needs_no_range() -> None:
    raw = Raw(np.array([[[0], [2047], [4095]]], np.uint16), 4095)
    assert to_levels(raw, None).ravel().tolist() == [0, round(2047 / 4095 * 65535), 65535]


def test_full_is_the_whole_range_of_an_integer_type() -> None:
    assert levels([-32768, 0, 32767], "full", "i2") == [0, 32768, 65535]
    assert levels([0, 7, 65535], "full", "u2") == [0, 7, 65535]
    with pytest.raises(UserError, match="float64 values, which have no full range"):
        levels([0.5], "full")


def test_without_a_range_a_deep_image_is_refused() -> None:
    with pytest.raises(DeepImage, match="its int16 values have no declared maximum"):
        levels([1], None, "i2")


def test_a_range_of_integers_does_not_scale_floats() -> None:
    with pytest.raises(UserError, match=r"'an image' has float64 values, and the range 0 to 4095 .* for integer ones"):
        levels([0.5], ValueRange(0, 4095, kind="integer"))
    assert levels([4095], ValueRange(0, 4095, kind="integer"), "i4") == [65535]
    assert levels([4095], ValueRange(0, 4095, kind="uint16"), "u2") == [65535]
    with pytest.raises(UserError, match="has int16 values"):
        levels([1], ValueRange(0, 65535, kind="uint16"), "i2")


def test_widening_is_exact() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.array_equal(floats(widened(pixels)), floats(pixels))
    assert stacked([pixels, widened(pixels)]).dtype == np.uint16 and stacked([pixels, pixels]).dtype == np.uint8

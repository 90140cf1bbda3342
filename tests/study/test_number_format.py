"""Numbers are formatted as the report documents: points with one digit, a minus sign, brackets, three digits of p."""

import pytest

from vision_mtl.study.number_format import (
    POINTS,
    format_count,
    format_duration,
    format_fraction,
    format_level,
    format_measure,
    format_p_value,
    unit_of,
)


def score(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high}


def test_shares_are_points_with_one_digit_and_a_real_minus() -> None:
    assert POINTS.value(0.6123) == "61.2" and POINTS.value(None) == "–"  # noqa: RUF001
    assert POINTS.difference(score(-0.0312, -0.05, -0.012)) == "−3.1 points [−5.0, −1.2]"  # noqa: RUF001
    assert POINTS.difference(score(0.0312, 0.012, 0.05)) == "+3.1 points [1.2, 5.0]"
    assert POINTS.score(score(0.5)) == "50.0" and POINTS.score(None) == "–"  # noqa: RUF001
    assert POINTS.value(-0.0001, signed=True) == POINTS.value(0.0, signed=True) == "0.0"


def test_an_end_that_is_not_0_is_not_shown_as_0() -> None:
    assert POINTS.interval(score(0.01, 0.0003, 0.02)) == "[0.03, 2.0]"
    assert POINTS.interval(score(0.0, 0.0, 0.0)) == "[0.0, 0.0]"
    assert POINTS.interval(score(0.0, 0.0, None)) == ""


@pytest.mark.parametrize(
    ("width", "shown"), [(0.31, "+0.12"), (3.1, "+0.1"), (31.0, "+0"), (0.0031, "+0.1235"), (0.0, "+0.1")]
)
def test_a_regression_has_digits_as_its_intervals_are_wide(width: float, shown: str) -> None:
    unit = unit_of(False, [score(2.0, 1.0, 1.0 + width), None])
    assert unit.factor == 1
    expected = shown if shown != "+0" else "0"
    assert unit.amount(0.12345, signed=True) == f"{expected} units of the label"
    assert unit_of(True, [score(2.0, 1.0, 2.0)]) is POINTS and unit_of(False).value(1.234) == "1.23"


def test_the_axis_of_a_regression_names_the_error() -> None:
    regression = {"kind": "regression", "metric": "minus the absolute error"}
    assert format_measure(regression) == "minus the absolute error, units of the label (higher is better)"
    assert format_measure({"kind": "dense", "metric": "pixel accuracy"}) == "pixel accuracy, %"


def test_fractions_p_values_durations_counts_and_levels() -> None:
    assert [format_fraction(f) for f in (0.1, 0.005, 1.0, None)] == ["10 % labels", "0.5 % labels", "all labels", "–"]  # noqa: RUF001
    assert [format_p_value(p) for p in (0.0625, 2**-9, 1.0, 1e-7, None)] == ["0.0625", "0.00195", "1", "< 0.0001", "–"]  # noqa: RUF001
    assert [format_duration(s) for s in (4.25, 45, 720, 12000)] == ["4.2 s", "45 s", "12 min", "3 h 20 min"]
    assert format_count(1, "share of labels") == "1 share of labels" and format_count(3, "seed") == "3 seeds"
    assert format_count(2, "share of labels") == "2 shares of labels" and format_level(1 - 0.05 / 12) == "99.58 %"

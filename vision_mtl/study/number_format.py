"""Numbers as a study's report tells them: scores in the unit that a reader thinks in, shares, p-values, durations.

Shares (accuracies) are told in points, per cent of the test images. A regression's score is minus its error, so it is
told in units of the label, and + is less error. Intervals stand in square brackets; the minus is U+2212.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind

NONE = "–"  # noqa: RUF001, a dash stands where there is no number
MINUS = "−"  # noqa: RUF001, the sign and not the hyphen
SMALLEST_P = 1e-4  # smaller ones are told as "< 0.0001"
FINEST = 2  # digits more than usual, so that the end of an interval is not told as 0 when it is not
WIDEST = 9  # digits after the point, whatever the label's unit
Score = Mapping[str, Any]


@dataclass(frozen=True)
class Unit:
    """How values of one task are told: times `factor`, with so many digits after the point; `name` in the plural."""

    factor: float
    decimals: int
    name: str

    def value(self, value: float | None, *, signed: bool = False) -> str:
        """The number alone; a dash for None. A value that rounds to 0 has no sign."""
        return NONE if value is None else _number(value * self.factor, self.decimals, signed)

    def interval(self, score: Score) -> str:
        """`[low, high]`, with a digit or two more where an end would be told as 0 and is not; "" without one."""
        if score["low"] is None or score["high"] is None:
            return ""
        low, high = (self._end(score[end] * self.factor) for end in ("low", "high"))
        return f"[{low}, {high}]"

    def score(self, score: Score | None, *, signed: bool = False) -> str:
        """The value and its interval, as in `61.2 [58.0, 64.3]`; a dash for None."""
        return NONE if score is None else f"{self.value(score['value'], signed=signed)} {self.interval(score)}".rstrip()

    def amount(self, value: float, *, signed: bool = False) -> str:
        """The number and its unit."""
        return f"{self.value(value, signed=signed)} {self.name}"

    def difference(self, score: Score) -> str:
        """`+3.1 points [1.2, 5.0]`."""
        return f"{self.amount(score['value'], signed=True)} {self.interval(score)}".rstrip()

    def _end(self, end: float) -> str:
        digits = self.decimals
        while digits < self.decimals + FINEST and end and not float(f"{end:.{digits}f}"):
            digits += 1
        return _number(end, digits)


POINTS = Unit(100, 1, "points")


def unit_of(is_share: bool, scores: Iterable[Score | None] = ()) -> Unit:
    """Points of a share, else units of the label with two digits of the narrower half of the intervals' widths."""
    if is_share:
        return POINTS
    known = [score for score in scores if score is not None]
    widths = sorted(score["high"] - score["low"] for score in known if score["low"] is not None)
    sizes = [width for width in widths if width > 0] or sorted(abs(score["value"]) for score in known if score["value"])
    if not sizes:
        return Unit(1, 2, "units of the label")
    return Unit(1, min(WIDEST, max(0, 1 - math.floor(math.log10(sizes[len(sizes) // 4])))), "units of the label")


def measure_words(task: Mapping[str, Any]) -> str:
    """What the task's values are, with the unit, as the axes and the tables name it."""
    if not label_kind(task["kind"]).has_classes:
        return f"{task['metric']}, units of the label (higher is better)"
    return f"{task['metric']}, %"


def share_words(fraction: float | None) -> str:
    """`10 % labels`, `all labels`, or a dash where a run has no labels."""
    if fraction is None:
        return NONE
    return "all labels" if fraction == 1 else f"{100 * fraction:.3g} % labels"


def p_words(p_value: float | None) -> str:
    """A p-value to three digits."""
    if p_value is None:
        return NONE
    return f"< {SMALLEST_P:.4f}" if p_value < SMALLEST_P else f"{p_value:.3g}"


def count_words(count: int, noun: str) -> str:
    """`1 seed`, `8 seeds`."""
    first, *rest = noun.split(" ", 1)  # "shares of labels"
    return " ".join([f"{count:,} {first}" + ("" if count == 1 else "s"), *rest])


def duration_words(seconds: float | None) -> str:
    """For people; a dash for None.

    >>> duration_words(4.25), duration_words(45), duration_words(720), duration_words(12000)
    ('4.2 s', '45 s', '12 min', '3 h 20 min')
    """
    if seconds is None:
        return NONE
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def level_words(level: float) -> str:
    """`99.58 %`."""
    return f"{100 * level:.4g} %"


def _number(value: float, decimals: int, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)

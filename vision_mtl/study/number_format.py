"""Format the numbers of a study's report: scores, shares, p-values, durations.

Shares (accuracies) are shown in per cent, their differences in percentage points. A regression's score is minus its
error, in units of the label, so + is less error. Intervals are in square brackets; the minus sign is U+2212.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind

NONE = "–"  # noqa: RUF001, a dash for a missing value
MINUS = "−"  # noqa: RUF001, the minus sign, not the hyphen
SMALLEST_P = 1e-4  # smaller p-values are shown as "< 0.0001"
MAX_EXTRA_DIGITS = 2  # for an interval's end that would be rounded to 0
MAX_DECIMALS = 9  # whatever the label's unit
Score = Mapping[str, Any]


@dataclass(frozen=True)
class Unit:
    """Format of one task's values: multiplied by `factor`, with `decimals`; `name` is the unit in the plural."""

    factor: float
    decimals: int
    name: str

    def value(self, value: float | None, *, signed: bool = False) -> str:
        """Return the number without its unit; a dash for None. A value that rounds to 0 has no sign."""
        return NONE if value is None else _number(value * self.factor, self.decimals, signed)

    def interval(self, score: Score) -> str:
        """Return `[low, high]`, with extra digits for an end that would be rounded to 0; "" without an interval."""
        if score["low"] is None or score["high"] is None:
            return ""
        low, high = (self._end(score[end] * self.factor) for end in ("low", "high"))
        return f"[{low}, {high}]"

    def score(self, score: Score | None, *, signed: bool = False) -> str:
        """Return the value and its interval, as in `61.2 [58.0, 64.3]`; a dash for None."""
        return NONE if score is None else f"{self.value(score['value'], signed=signed)} {self.interval(score)}".rstrip()

    def amount(self, value: float, *, signed: bool = False) -> str:
        """Return the number and its unit."""
        return f"{self.value(value, signed=signed)} {self.name}"

    def difference(self, score: Score) -> str:
        """Return a difference with its sign, unit and interval: `+3.1 points [1.2, 5.0]`."""
        return f"{self.amount(score['value'], signed=True)} {self.interval(score)}".rstrip()

    def _end(self, end: float) -> str:
        digits = self.decimals
        while digits < self.decimals + MAX_EXTRA_DIGITS and end and not float(f"{end:.{digits}f}"):
            digits += 1
        return _number(end, digits)


POINTS = Unit(100, 1, "points")


def unit_of(is_share: bool, scores: Iterable[Score | None] = ()) -> Unit:
    """Return points for a share, else units of the label.

    The decimals of the latter show two digits of the lower quartile of the intervals' widths.
    """
    if is_share:
        return POINTS
    known = [score for score in scores if score is not None]
    widths = sorted(score["high"] - score["low"] for score in known if score["low"] is not None)
    sizes = [width for width in widths if width > 0] or sorted(abs(score["value"]) for score in known if score["value"])
    if not sizes:
        return Unit(1, 2, "units of the label")
    return Unit(1, min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(sizes[len(sizes) // 4])))), "units of the label")


def format_measure(task: Mapping[str, Any]) -> str:
    """Return the task's metric with its unit, for axes and tables."""
    if not label_kind(task["kind"]).has_classes:
        return f"{task['metric']}, units of the label (higher is better)"
    return f"{task['metric']}, %"


def format_fraction(fraction: float | None) -> str:
    """Return a label fraction: `10 % labels`, `all labels`, or a dash for a run without labels."""
    if fraction is None:
        return NONE
    return "all labels" if fraction == 1 else f"{100 * fraction:.3g} % labels"


def format_p_value(p_value: float | None) -> str:
    """Return a p-value with three digits; a dash for None."""
    if p_value is None:
        return NONE
    return f"< {SMALLEST_P:.4f}" if p_value < SMALLEST_P else f"{p_value:.3g}"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: `1 seed`, `8 seeds`."""
    first, *rest = noun.split(" ", 1)  # "shares of labels"
    return " ".join([f"{count:,} {first}" + ("" if count == 1 else "s"), *rest])


def format_duration(seconds: float | None) -> str:
    """Return a duration in seconds, minutes or hours; a dash for None.

    >>> format_duration(4.25), format_duration(45), format_duration(720), format_duration(12000)
    ('4.2 s', '45 s', '12 min', '3 h 20 min')
    """
    if seconds is None:
        return NONE
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def format_level(level: float) -> str:
    """Return a confidence level in per cent: `99.58 %`."""
    return f"{100 * level:.4g} %"


def _number(value: float, decimals: int, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)

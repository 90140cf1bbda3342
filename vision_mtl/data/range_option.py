"""The option `value_range`: the values of deep images that become 0 and 1. Imports nothing heavy (see `options.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vision_mtl.core.errors import UserError

FORMS = (
    "two numbers (--{name} -1024 3071), two percentiles of the training images (--{name} 1% 99%; 0% 100% are their "
    "minimum and maximum), or full (the whole range of an integer type)"
)


RangeGiven = Literal["full"] | Sequence[float | str] | None


@dataclass(frozen=True)
class RangeOption:
    """A parsed option: `low` and `high` in units of the values or in percent; 0 and 0 for `full`."""

    unit: Literal["value", "percent", "full"]
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        sign = "%" if self.unit == "percent" else ""
        return "full" if self.unit == "full" else f"{self.low:g}{sign} and {self.high:g}{sign}"


def read_range(name: str, given: RangeGiven) -> RangeOption | None:
    """Return the option `name` parsed; None if it is not given. Raises `UserError` with the rule and the value."""
    if given is None:
        return None
    if given == "full":
        return RangeOption("full")
    ends = [str(end).strip() for end in given]
    percent = [end.endswith("%") for end in ends]
    try:
        low, high = (float(end.removesuffix("%")) for end in ends)
    except ValueError:
        low, high = math.nan, math.nan
    inside = not any(percent) or (all(percent) and low >= 0 and high <= 100)
    if not (math.isfinite(low) and math.isfinite(high) and low < high and inside):
        raise UserError(f"{name} must be {FORMS.format(name=name)}, the smaller first; found {given}.")
    return RangeOption("percent" if all(percent) else "value", low, high)


def range_of_source(source: str, default: RangeGiven, given: Mapping[str, RangeGiven]) -> RangeOption | None:
    """Return the range of `source`: that `given` by its tasks, or else `default` (`data.value_range`).

    Raises `UserError` if two tasks disagree.
    """
    own = {name: read_range(f"tasks.{name}.value_range", value) for name, value in given.items() if value is not None}
    if len(set(own.values())) > 1:
        (first, low), (second, high) = list({value: (name, value) for name, value in own.items()}.values())[:2]
        raise UserError(
            f"the tasks on {source} must agree on the range of its values: tasks.{first}.value_range is {low}, "
            f"tasks.{second}.value_range is {high}. Give one of them."
        )
    return next(iter(own.values())) if own else read_range("data.value_range", default)

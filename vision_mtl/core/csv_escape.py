"""Escapes CSV cells, so that a spreadsheet does not run a text as a formula."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a formula


def escape_cell(value: Any) -> Any:
    """Return `value` with an apostrophe before a text that a spreadsheet would run; numbers stay as they are.

    Class, file and task names come from data that others wrote, and may be `=HYPERLINK(...)`.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA) or len(value) == 1:  # a sign alone is no formula
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value

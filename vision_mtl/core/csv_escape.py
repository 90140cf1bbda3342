"""Text in a CSV file that a spreadsheet will open: what it would take for a formula is marked as text."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes


def escape_cell(value: Any) -> Any:
    """`value` as a cell: a text that would be computed gets an apostrophe before it; numbers stay numbers.

    A class, file or task name may be `=HYPERLINK(...)`; who wrote it is not who opens the table.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA) or len(value) == 1:  # a sign alone computes nothing
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value

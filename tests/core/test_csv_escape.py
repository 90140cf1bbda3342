"""Formulas in CSV cells become text; numbers stay numbers."""

import pytest

from vision_mtl.core.csv_escape import escape_cell


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_formulas_are_marked_as_text(text: str) -> None:
    assert escape_cell(text) == "'" + text


@pytest.mark.parametrize("value", ["-1", "+2.5e3", "-inf", "a=b", "", "cat", 3, -0.5, None, True])
def test_everything_else_stays(value: object) -> None:
    assert escape_cell(value) is value

"""Notebooks import and show: they define nothing, and what is committed of them is small, whole and of no one machine.

That they run is tested by running them: `--nbmake` in pyproject.toml.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 1_000_000
OF_A_MACHINE = re.compile(r"/(?:tmp|home|root|Users|mnt|private|var)/|[A-Z]:\\\\")  # beginnings of absolute paths
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def cells(book: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(book.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_five() -> None:
    assert [book.stem[:2] for book in BOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_defines_nothing(book: Path) -> None:
    for cell in cells(book, "code"):
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith(("%", "!"))]
        nodes = ast.walk(ast.parse("\n".join(lines)))
        assert not [type(node).__name__ for node in nodes if isinstance(node, DEFINITIONS)]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_what_is_committed_is_whole_small_and_of_no_machine(book: Path) -> None:
    text = book.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not OF_A_MACHINE.search(re.sub(r"base64,[^\"\\]+|\"image/\w+\": *\"[^\"]+\"", "", text))
    code = cells(book, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    assert not any("execution" in cell["metadata"] for cell in code), "times of execution change with every run"
    assert "widgets" not in json.loads(text)["metadata"], "the state of sliders shows nowhere but in a running notebook"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 3
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result"}, "errors or noise"


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_tells_one_short_story(book: Path) -> None:
    found = json.loads(book.read_text("utf-8"))["cells"]
    assert found[0]["cell_type"] == "markdown" and "".join(found[0]["source"]).startswith("# ")
    assert len(found) < 10

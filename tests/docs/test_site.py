"""The site builds without a warning, with a page for every room; the examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import logging
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vision_mtl"
WITH_EXAMPLES = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text("utf-8")]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocstrings", reason="pip install -r requirements-docs.txt")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    heard: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(listener)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site")))
    finally:
        logging.getLogger("mkdocs").removeHandler(listener)
    assert heard == []
    for room in (folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()):
        page = (tmp_path / "site" / "reference" / room / "index.html").read_text("utf-8")
        assert f"vision_mtl.{room}." in page
    page = (tmp_path / "site" / "reference" / "data" / "index.html").read_text("utf-8")
    assert "shard exceeds" in page, "docstrings are shown"
    index = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert 'src="images/repairs.jpg"' in index and ".md" not in "".join(links(index))


def links(page: str) -> list[str]:
    """The targets of a page's links."""
    return [part.partition('"')[0] for part in page.split('href="')[1:] if not part.startswith("http")]


def test_every_room_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert {room for room in rooms if f"reference/{room}.md" not in text} == set()


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_examples_in_docstrings_are_true(file: Path) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 5

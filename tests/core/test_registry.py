"""A component is one file: names come from the files' text, and nothing else is imported."""

import sys
from pathlib import Path

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.core.registry import Registry

COMPONENT = """
from {package}.base import THINGS

@THINGS.register("{name}")
class Thing:
    pass
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "things_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text(
        "from vision_mtl.core.registry import Registry\nTHINGS = Registry('thing', 'things_room')\n"
    )
    for name in ("apple", "pear"):
        (folder / f"{name}.py").write_text(COMPONENT.format(package="things_room", name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("things_room")]:
        del sys.modules[name]


def registry() -> Registry:
    import things_room.base

    return things_room.base.THINGS


def test_names_are_files_and_import_nothing(room: Path) -> None:
    assert registry().names() == ["apple", "pear"]
    assert "things_room.apple" not in sys.modules


def test_getting_one_imports_it_alone(room: Path) -> None:
    assert registry().get("apple").__name__ == "Thing"
    assert "things_room.pear" not in sys.modules


def test_a_new_file_is_found_without_another_edit(room: Path) -> None:
    (room / "plum.py").write_text(COMPONENT.format(package="things_room", name="plum"))
    assert "plum" in registry().names()
    assert registry().get("plum") is not None


def test_a_typing_slip_names_the_nearest(room: Path) -> None:
    with pytest.raises(UserError, match=r"unknown thing 'aple'\. Did you mean 'apple'\? Known: apple, pear\."):
        registry().get("aple")


def test_a_name_that_is_not_its_file_is_refused(room: Path) -> None:
    (room / "fig.py").write_text(COMPONENT.format(package="things_room", name="fig").replace('"fig"', '"date"'))
    with pytest.raises(ValueError, match=r"date\.py"):
        import things_room.fig  # noqa: F401

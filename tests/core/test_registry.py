"""A component is one file: names come from the text of the files, without importing them."""

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
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "things_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text(
        "from vision_mtl.core.registry import Registry\nTHINGS = Registry('thing', 'things_package')\n"
    )
    for name in ("apple", "pear"):
        (folder / f"{name}.py").write_text(COMPONENT.format(package="things_package", name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("things_package")]:
        del sys.modules[name]


def registry() -> Registry:
    import things_package.base

    return things_package.base.THINGS


def test_listing_names_imports_no_component(package: Path) -> None:
    assert registry().names() == ["apple", "pear"]
    assert "things_package.apple" not in sys.modules


def test_getting_a_component_imports_only_its_file(package: Path) -> None:
    assert registry().get("apple").__name__ == "Thing"
    assert "things_package.pear" not in sys.modules


def test_a_new_file_is_found_without_another_edit(package: Path) -> None:
    (package / "plum.py").write_text(COMPONENT.format(package="things_package", name="plum"))
    assert "plum" in registry().names()
    assert registry().get("plum") is not None


def test_a_misspelt_name_suggests_the_nearest(package: Path) -> None:
    with pytest.raises(UserError, match=r"unknown thing 'aple'\. Did you mean 'apple'\? Known: apple, pear\."):
        registry().get("aple")


def test_a_name_that_differs_from_its_file_is_refused(package: Path) -> None:
    (package / "fig.py").write_text(COMPONENT.format(package="things_package", name="fig").replace('"fig"', '"date"'))
    with pytest.raises(ValueError, match=r"date\.py"):
        import things_package.fig  # noqa: F401

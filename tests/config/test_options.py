"""Options, defaults and help come from the text of signatures."""

from pathlib import Path

import pytest

from vision_mtl.config.options import REQUIRED, Option, read_options, registered_class, summary

TEXT = '''"""First line.

More.
"""

@dataclass
class Plain:
    """Doc."""

    size: int = 3  # pixels a side
    kinds: ClassVar[int] = 2
    names: list[str] = field(default_factory=list)  # of people;
    # and of places
    path: str  # where

    _hidden: int = 0


class Built(Base):
    def __init__(self, name: str = "x", kwargs: dict[str, Any] = {}, *, size: tuple[int, int]) -> None:
        # a comment inside is not help
        pass


@ROOM.register("sample")
def stage(config, run, *, split: str = "test", rate: float = 1e-3, of: list[int] = [1]):  # noqa: B006 the last
    pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.py"
    path.write_text(TEXT)
    return path


def test_fields_of_a_dataclass(file: Path) -> None:
    assert read_options(file, "Plain") == (
        Option("size", "int", 3, "pixels a side"),
        Option("names", "list[str]", [], "of people; and of places"),
        Option("path", "str", REQUIRED, "where"),
    )


def test_parameters_of_a_constructor_that_have_a_default(file: Path) -> None:
    assert [(o.name, o.default) for o in read_options(file, "Built")] == [("name", "x"), ("kwargs", {})]


def test_keyword_only_parameters_of_a_function(file: Path) -> None:
    assert [(o.name, o.annotation, o.default) for o in read_options(file, "stage")] == [
        ("split", "str", "test"),
        ("rate", "float", 1e-3),
        ("of", "list[int]", [1]),
    ]


def test_words_to_the_linter_are_no_help(file: Path) -> None:
    assert read_options(file, "stage")[-1].help == "the last"


def test_what_a_file_registers_and_says(file: Path) -> None:
    assert registered_class(file) == "stage"
    assert summary(file) == "First line."


def test_an_absent_name_is_said(file: Path) -> None:
    with pytest.raises(KeyError, match="Absent"):
        read_options(file, "Absent")

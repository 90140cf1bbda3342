"""Options, defaults and help are the fields of dataclasses; pydantic converts their values."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from vision_mtl.config.options import REQUIRED, Option, convert, from_words, is_mapping, options_of, summary, type_text
from vision_mtl.core.errors import UserError

Colour = Literal["red", "green"]


@dataclass(frozen=True, kw_only=True)
class Base:
    """Shared options. More about them."""

    weight: float = 1.0
    """Relative to the others."""


@dataclass(frozen=True, kw_only=True)
class Plain(Base):
    """Sizes and names.

    More.
    """

    kinds: ClassVar[int] = 2
    """Not an option."""
    size: int = 3
    """Pixels a side;
    at least 1."""
    names: list[str] = field(default_factory=list)
    path: str
    """Its file."""
    colour: Colour = "red"
    """An alias is resolved."""


def test_fields_are_options_and_the_docstrings_below_them_their_help() -> None:
    assert options_of(Plain) == (
        Option("weight", float, 1.0, "Relative to the others"),
        Option("size", int, 3, "Pixels a side; at least 1"),
        Option("names", list[str], [], ""),
        Option("path", str, REQUIRED, "Its file"),
        Option("colour", Colour, "red", "An alias is resolved"),
    )
    assert (summary(Plain), summary(Base)) == ("Sizes and names", "Shared options")


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        (int, ["3"], 3),
        (float, ["1e-3"], 1e-3),
        (bool, [], True),
        (bool, ["false"], False),
        (bool | Literal["auto"], ["auto"], "auto"),
        (str, ["007"], "007"),
        (str | None, ["null"], None),
        (int | None, ["null"], None),
        (list[str], ["a", "1"], ["a", "1"]),
        (list[int], ["[1, 2]"], [1, 2]),
        (tuple[float, float], ["0.9", "1"], (0.9, 1.0)),
        (int | str | list[int | str], ["2", "3x5"], [2, "3x5"]),
        (int | str | list[int | str], ["4"], 4),
        (int | Literal["all"], ["all"], "all"),
        (dict[str, Any], ["{a: 1}"], {"a": 1}),
        (str | dict[str, Any], ["light"], "light"),
        (Colour, ["green"], "green"),
    ],
)
def test_words_become_values_of_the_type(kind: Any, words: list[str], value: object) -> None:
    option = Option("x.y", kind, REQUIRED, "some help")
    found = convert(option, from_words(option, words))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "many", "option x.y must be a whole number; found 'many' .some help."),
        (int, True, "must be a whole number; found True"),
        (int, 1.5, "must be a whole number; found 1.5"),
        (float | None, "x", "must be a number or null; found 'x'"),
        (str, 3, "must be text; found 3"),
        (bool, "perhaps", "must be true or false; found 'perhaps'"),
        (Colour, "gren", "unknown value of x.y 'gren'. Did you mean 'green'"),
        (int | Literal["all"], "al", "must be a whole number or all; found 'al'"),
        (list[int], ["a"], r"must be list\[int\]; found \['a'\]"),
    ],
)
def test_a_value_that_the_type_does_not_allow_is_named(kind: Any, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(Option("x.y", kind, REQUIRED, "some help"), value)


def test_too_many_values_or_none_are_named() -> None:
    with pytest.raises(UserError, match="takes one value; found '1 2'"):
        from_words(Option("x", int, 0, ""), ["1", "2"])
    with pytest.raises(UserError, match="needs a value"):
        from_words(Option("x", int, 0, ""), [])
    with pytest.raises(UserError, match="is not YAML"):
        from_words(Option("x", list[int], [], ""), ["[1"])


def test_types_in_help() -> None:
    assert type_text(int | None) == "int | None"
    assert type_text(Colour) == "[red, green]"
    assert type_text(bool | Literal["auto"]) == "bool | [auto]"
    assert is_mapping(Option("x", float | dict[str, float], 0.1, ""))
    assert is_mapping(Option("x", dict[str, Any], {}, "")) and not is_mapping(Option("x", str, "", ""))

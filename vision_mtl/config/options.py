"""Options are the fields of frozen dataclasses: a field's annotation is its type, the docstring below it its help.

pydantic converts and checks values, docstring_parser reads the docstrings below fields; both keep this file short.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from pydantic import TypeAdapter, ValidationError

from vision_mtl.config.yaml_files import load_yaml
from vision_mtl.core.errors import UserError, unknown

REQUIRED = dataclasses.MISSING  # the default of an option that has none
NAMES = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null", str: "text"}


@dataclass(frozen=True)
class Option:
    """The dotted name of an option, its type, its default (or `REQUIRED`) and its help."""

    name: str
    type: Any
    default: object
    help: str

    @property
    def type_text(self) -> str:
        """The type as help shows it: `int | None`, `[auto, fp32, bf16]`."""
        return type_text(self.type)


def options_of(component: type) -> tuple[Option, ...]:
    """Return the options of a dataclass, in order: its fields, those of its base classes first."""
    return _options_of(component)


@lru_cache
def _options_of(component: type) -> tuple[Option, ...]:
    hints, help_texts = get_type_hints(component), _help_texts(component)
    return tuple(
        Option(field.name, hints[field.name], _default(field), help_texts.get(field.name, ""))
        for field in dataclasses.fields(component)
        if field.init and get_origin(hints[field.name]) is not ClassVar
    )


def summary(component: type) -> str:
    """Return the first sentence of a class's docstring, without its full stop."""
    first = (inspect.getdoc(component) or "").partition("\n\n")[0]
    return " ".join(first.split()).partition(". ")[0].removesuffix(".")


def convert(option: Option, value: Any) -> Any:
    """Return `value` converted to the option's type.

    Raises `UserError` naming the option, its type, the value, and the nearest choice.
    """
    kinds = _alternatives(option.type)
    if _is_list(kinds[0]) and isinstance(value, str) and not value.startswith("["):
        value = [value]
    if isinstance(value, bool) and bool not in kinds and Any not in kinds:
        raise _value_error(option, value)  # pydantic would read true as 1
    try:
        return _adapter(option.type).validate_python(value)
    except ValidationError:
        raise _value_error(option, value) from None


def from_words(option: Option, words: Sequence[str]) -> Any:
    """Return the words after an option on the command line as a value for `convert`.

    Raises `UserError` for a missing value, for too many, and for a list or mapping that is not YAML.
    """
    kinds = _alternatives(option.type)
    if not words:
        if kinds[0] is bool:
            return True
        raise UserError(f"option --{option.name} needs a value ({option.help}).")
    lists = [kind for kind in kinds if _is_list(kind)]
    if lists and not words[0].startswith("[") and (len(words) > 1 or _is_list(kinds[0])):
        items = [item for kind in lists for item in _alternatives(get_args(kind)[0])]
        return [_plain_value(word, items) for word in words]
    if len(words) > 1:
        raise UserError(f"option --{option.name} takes one value; found {' '.join(words)!r}.")
    (word,) = words
    if word == "null" and NoneType in kinds:
        return None
    if word[:1] in ("[", "{") and not set(kinds) <= {str, NoneType}:
        return read_yaml(option.name, word)
    return _plain_value(word, kinds)


def read_yaml(name: str, text: str) -> Any:
    """Return the value of `text` in YAML; raises `UserError` naming the option if it is not YAML."""
    try:
        return load_yaml(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"the value of --{name} is not YAML: {' '.join(str(error).split())}") from error


def type_text(kind: Any) -> str:
    """Return a type as help shows it: `int | None`, `[auto, fp32, bf16]`."""
    if get_origin(kind) is Literal:
        return f"[{', '.join(map(str, get_args(kind)))}]"
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(type_text(part) for part in get_args(kind))
    return "None" if kind is NoneType else inspect.formatannotation(kind).replace("typing.", "")


def is_mapping(option: Option) -> bool:
    """Return True if the option may hold a mapping, so that `--option.KEY value` sets one entry."""
    return any(get_origin(kind) is dict for kind in _alternatives(option.type))


def plain(value: Any) -> Any:
    """Return nested mappings, lists and tuples as dicts and lists, which YAML and JSON hold."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _help_texts(component: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(component.__mro__):
        if dataclasses.is_dataclass(base):
            parameters = docstring_parser.parse_from_object(base).params
            found |= {p.arg_name: " ".join((p.description or "").split()).removesuffix(".") for p in parameters}
    return found


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple)


def _plain_value(word: str, kinds: Sequence[Any]) -> Any:
    """Return a number or boolean unless the option takes text alone: in a union of both, pydantic prefers text."""
    if set(kinds) <= {str, NoneType}:
        return word
    if bool in kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    return int(word) if re.fullmatch(r"[+-]?\d{1,18}", word) else word


def _value_error(option: Option, value: Any) -> UserError:
    """Return the error for a value that the option's type does not allow."""
    kinds = _alternatives(option.type)
    if not {int, float, str, bool} & set(kinds) and (choices := _choices(kinds)):
        return unknown(f"value of {option.name}", str(value), choices)
    if choices := _choices([item for kind in kinds if _is_list(kind) for item in get_args(kind)]):
        for item in map(str, value if isinstance(value, list) else ()):
            if item not in choices:
                return unknown(f"value of {option.name}", item, choices)
    nested = [kind for kind in kinds if get_origin(kind) in (list, tuple, dict)]
    scalars = [kind for kind in kinds if kind not in nested]
    names = [NAMES.get(kind) or ", ".join(_choices([kind])) or type_text(kind) for kind in scalars]
    names += [type_text(kind) for kind in nested]
    meaning = f" ({option.help})" if option.help else ""
    is_word = str in kinds and isinstance(value, bool | int | float)
    hint = " YAML reads this word as a boolean or a number: put it into quotes." if is_word else ""
    return UserError(f"option {option.name} must be {' or '.join(names)}; found {value!r}{meaning}.{hint}")


def _choices(kinds: Sequence[Any]) -> list[str]:
    """Return the values of the Literals among `kinds`."""
    return [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]

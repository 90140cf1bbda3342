"""Config files in YAML, read as mappings.

A name is the text that was typed: YAML 1.1 reads the names `no` and `on` as booleans and 7 as a number. It also reads
010 as 8, 1:30 as 90 and 2024-01-01 as a date; here these are text, which an option for a number reads as a person does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vision_mtl.core.errors import UserError
from vision_mtl.data.tables import read_text


class TypedWords(yaml.SafeLoader):
    """Reads YAML as `yaml.SafeLoader` does, without the readings above. A name that is given twice is an error."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping with the names as they were typed."""
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            _refuse_doubled(node)
        return super().construct_mapping(node, deep)


# first character of a word -> the tags and patterns that are tried
_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
TypedWords.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _REPLACED]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)"  # neither octal nor to base 60
_FLOAT = r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _kind, _pattern in (("int", _INT), ("float", _FLOAT)):
    TypedWords.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list("-+.0123456789")
    )


def load_yaml(text: str) -> Any:
    """Return the content of YAML text, in which names stay as they were typed. Raises `yaml.YAMLError`."""
    loader = TypedWords(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a YAML config file; raises `UserError` naming file and line."""
    try:
        content = load_yaml(read_text(path.expanduser()))
    except OSError as error:
        raise UserError(f"cannot read the config file {str(path)!r}: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of options; found {type(content).__name__}.")
    return content or {}


def _refuse_doubled(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the name {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)

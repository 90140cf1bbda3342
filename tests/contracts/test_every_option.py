"""Every option is read by code, says what it is with its unit, and is in the help of its stage, once, in its group."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import vision_mtl
from vision_mtl.cli.help import help_text
from vision_mtl.config.options import options_of
from vision_mtl.config.run_config import DEFAULT_DECODER, REPAIRS, SECTIONS, General
from vision_mtl.config.schema import build_schema
from vision_mtl.config.stage import STAGES
from vision_mtl.data.options import Task
from vision_mtl.models.decoder import DECODERS
from vision_mtl.pretext.contract import PRETEXTS

PACKAGE = Path(vision_mtl.__file__).parent
# of a number: what it counts or measures, or the values that it may take
UNITS = re.compile(
    r"second|step|pixel|image|epoch|thread|GB|MB|share|ratio|steps|number|channel|cell|class|seed|times|weight|rate|"
    r"decay|norm|part|block|column|row|width|head|radius|factor|strength|degree|temperature|deviation|picture|checkpoint|"
    r"probe|run|convolution|depth|draw|value|std|scale|\[\d|pass|label|batch|port|shard|fold|question|measur|small|large|"
    r"unit|window|budget|evaluation|worker|sigma|side",
    re.IGNORECASE,
)


def components() -> list[type]:
    """Every class whose fields are options."""
    registered = [registry.get(name) for registry in (DECODERS, PRETEXTS, STAGES) for name in registry.names()]
    return [*SECTIONS.values(), General, Task, *registered]


def read_names(root: ast.AST) -> set[str]:
    """Names of attributes that code reads; the checks of a class on itself are no use of an option."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(root):
        if isinstance(node, ast.FunctionDef) and node.name == "__post_init__":
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            found.add(node.value.rpartition(".")[2])  # "data.unlabelled", values[General's field]
        found |= read_names(node)
    return found


@cache
def read_anywhere() -> frozenset[str]:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "help.py"]
    return frozenset().union(*(read_names(ast.parse(file.read_text("utf-8"))) for file in files))


def unread(component: type, read: frozenset[str] | set[str]) -> list[str]:
    return [option.name for option in options_of(component) if option.name not in read]


@pytest.mark.parametrize("component", components(), ids=lambda component: component.__name__)
def test_every_option_is_read_and_says_what_it_is(component: type) -> None:
    assert unread(component, read_anywhere()) == []
    for option in options_of(component):
        where = f"{option.name} of {component.__name__}"
        assert len(option.help) > 5, f"{where} has no help"
        if re.search(r"\b(int|float)\b", option.type_text) and "bool" not in option.type_text:
            assert UNITS.search(f"{option.help} {option.name}"), f"{where}: {option.help!r} has no unit"


@dataclass(frozen=True)
class Lonely:
    """A component with an option that only its own check reads."""

    read_here: int = 1
    """Steps."""
    checked_only: int = 2
    """Steps."""

    def __post_init__(self) -> None:
        assert self.checked_only

    def go(self) -> int:
        return self.read_here


def test_an_option_that_nothing_reads_is_found() -> None:
    assert unread(Lonely, read_names(ast.parse(textwrap.dedent(inspect.getsource(Lonely))))) == ["checked_only"]


@pytest.mark.parametrize("stage", STAGES.names())
def test_the_help_of_a_stage_has_every_option_once_in_its_group(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = help_text(stage)
    groups = {title: body for title, body in re.findall(r"^(\S.*):\n((?:  .*\n?)+)", text + "\n", re.MULTILINE)}
    schema = build_schema(stage, ["NAME"], REPAIRS, DEFAULT_DECODER)
    for key in schema:
        (title,) = [
            title for title, body in groups.items() if re.search(rf"^  --{re.escape(key)} ", body, re.MULTILINE)
        ]
        section = key.partition(".")[0] if "." in key else "every stage"
        assert section in title or title.startswith(f"options of stage {section}"), f"{key} stands under {title!r}"
    entries = re.findall(r"^  --(\S+) .*\n((?: {8}.*\n?)+)", text, re.MULTILINE)
    described = {key: " ".join(words.split()) for key, words in entries}
    for key in schema:
        assert re.search(r"\((default: .+|required)\)$", described[key]), described[key]
    assert text.startswith("usage: ") and max(map(len, text.splitlines())) <= 120

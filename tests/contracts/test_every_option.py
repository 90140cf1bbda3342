"""Every option is read by code, says what it is with its unit, and is in the help of its stage, once, in its group."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from vision_mtl.cli.help import help_text
from vision_mtl.config.options import read_options, registered_class
from vision_mtl.config.resolve import (
    _DECODERS,
    _PRETEXTS,
    DEFAULT_DECODER,
    DEFAULT_PRETEXTS,
    HERE,
    SIMPLE_SECTIONS,
    option_table,
)
from vision_mtl.config.stage import STAGES

BALANCINGS = sorted(
    file for file in (HERE / "training/balancing").glob("*.py") if ".register(" in file.read_text("utf-8")
)
# what holds an option where it is used: `optim.steps`, `config.optim["steps"]`, `task.split`, `options.fit`
HOLDERS = {
    "options",
    "config",
    "data",
    "task",
    "optim",
    "balance",
    "runtime",
    "track",
    "part",
    "pretext",
    "general",
    "o",
}
# of a number: what it counts or measures, or the values that it may take
UNITS = re.compile(
    r"second|step|pixel|image|epoch|thread|GB|MB|share|ratio|steps|number|channel|cell|class|seed|times|weight|rate|"
    r"decay|norm|part|block|column|row|width|head|radius|factor|strength|degree|temperature|deviation|picture|checkpoint|"
    r"probe|run|convolution|depth|draw|value|std|scale|\[\d|pass|label|batch|port|shard|fold|question|measur|small|large|"
    r"unit|window|budget|evaluation|worker|sigma|side",
    re.IGNORECASE,
)


def components() -> list[tuple[str, Path, str]]:
    """(section, file, class or function) of everything whose signature is options."""
    found = [(section, HERE / file, name) for section, (file, name) in SIMPLE_SECTIONS.items()]
    found += [("general", HERE / "config/resolve.py", "General"), ("tasks", HERE / "data/options.py", "Task")]
    registered = [("decoder", _DECODERS.file(name)) for name in _DECODERS.names()]
    registered += [("pretexts", _PRETEXTS.file(name)) for name in _PRETEXTS.names()]
    registered += [("stage", STAGES.file(name)) for name in STAGES.names()]
    registered += [("balancing", file) for file in BALANCINGS]
    return found + [(section, file, registered_class(file)) for section, file in registered]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def reads_in(root: ast.AST, own: bool) -> set[str]:
    """Names of options that the code below `root` reads from a holder, or, in its own class or function, directly."""
    found = set()
    for node in ast.walk(root):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            holder = ast.unparse(node.value).rpartition(".")[2].strip("()")
            if holder in HOLDERS or (own and holder == "self"):
                found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            found.add(node.value.rpartition(".")[2])  # config.optim["steps"], "data.unlabelled"
        elif own and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
    return found


@cache
def read_elsewhere() -> frozenset[str]:
    """Names that some code of the package reads from a holder; what only a class's own check of itself reads is not."""
    found: set[str] = set()
    for file in HERE.rglob("*.py"):
        if file.name != "help.py":
            found |= reads_in(tree(file), own=False)
    return frozenset(found)


def _without_checks(node: ast.stmt) -> ast.stmt:
    """A class without its `__post_init__`: to check a value is not to use it."""
    if not isinstance(node, ast.ClassDef):
        return node
    kept = [m for m in node.body if not (isinstance(m, ast.FunctionDef) and m.name == "__post_init__")]
    return ast.ClassDef(node.name, node.bases, node.keywords, kept, node.decorator_list, **TYPE_PARAMETERS)


TYPE_PARAMETERS = {"type_params": []} if "type_params" in ast.ClassDef._fields else {}


def unread(file: Path, name: str) -> list[str]:
    """The options of `name` in `file` that nothing reads."""
    node = next(n for n in tree(file).body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)
    body = ast.Module(_without_checks(node).body if isinstance(node, ast.ClassDef) else node.body, [])
    read = reads_in(body, own=True) | read_elsewhere()
    return [option.name for option in read_options(file, name) if option.name not in read]


@pytest.mark.parametrize(
    ("section", "file", "name"), components(), ids=lambda value: getattr(value, "stem", str(value))
)
def test_every_option_is_read_and_says_what_it_is(section: str, file: Path, name: str) -> None:
    assert unread(file, name) == []
    for option in read_options(file, name):
        where = f"{section}.{option.name} of {file.name}"
        assert len(option.help) > 5, f"{where} has no help"
        if re.search(r"\b(int|float)\b", option.annotation) and "bool" not in option.annotation:
            assert UNITS.search(f"{option.help} {option.name}"), f"{where}: {option.help!r} has no unit"


def test_an_option_that_nothing_reads_is_found(tmp_path: Path) -> None:
    file = tmp_path / "lonely.py"
    file.write_text(
        "class Lonely:\n    read_here: int = 1  # steps\n    checked_only: int = 2  # steps\n\n"
        "    def __post_init__(self):\n        assert self.checked_only\n\n"
        "    def go(self):\n        return self.read_here\n"
    )
    assert unread(file, "Lonely") == ["checked_only"]


@pytest.mark.parametrize("stage", STAGES.names())
def test_the_help_of_a_stage_has_every_option_once_in_its_group(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = help_text(stage)
    groups = {title: body for title, body in re.findall(r"^(\S.*):\n((?:  .*\n?)+)", text + "\n", re.MULTILINE)}
    table = option_table(stage, ["NAME"], list(DEFAULT_PRETEXTS), DEFAULT_DECODER)
    for key in table:
        (title,) = [
            title for title, body in groups.items() if re.search(rf"^  --{re.escape(key)} ", body, re.MULTILINE)
        ]
        section = key.partition(".")[0] if "." in key else "every stage"
        assert section in title or title.startswith(f"options of stage {section}"), f"{key} stands under {title!r}"
    entries = re.findall(r"^  --(\S+) .*\n((?: {8}.*\n?)+)", text, re.MULTILINE)
    described = {key: " ".join(words.split()) for key, words in entries}
    for key in table:
        assert re.search(r"\((default: .+|required)\)$", described[key]), described[key]
    assert text.startswith("usage: ") and max(map(len, text.splitlines())) <= 120

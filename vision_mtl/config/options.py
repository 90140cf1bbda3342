"""Options are read from signatures: a constructor's keywords are the config, and the comment beside one is its help.

The source text is parsed, never imported, so listing every option of every component costs milliseconds and needs no
PyTorch. What counts as the options of `name` in a file:

- a class with an `__init__`: that method's parameters with a default;
- a dataclass: its annotated fields, in order;
- a function: its keyword-only parameters.

Help is the comment at the end of the parameter's line, and comment lines directly below it. Defaults must be literals.
"""

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

REQUIRED = object()  # the default of an option that has none


@dataclass(frozen=True)
class Option:
    """One keyword: its name, its annotation as text, its default (or `REQUIRED`) and one line of help."""

    name: str
    annotation: str
    default: object
    help: str


@lru_cache
def read_options(file: Path, name: str) -> tuple[Option, ...]:
    """The options of the class or function `name` in `file`. Raises `KeyError` if the file does not define it."""
    text = file.read_text("utf-8")
    comments = _comments(text)
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return tuple(_option(*part, comments) for part in _parts(node))
    raise KeyError(f"{file} defines no {name}")


@lru_cache
def registered_class(file: Path) -> str:
    """The name of the class or function that carries `.register("<file's name>")` in `file`; raises `KeyError`."""
    for node in ast.parse(file.read_text("utf-8")).body:
        for decorator in getattr(node, "decorator_list", []):
            if ast.unparse(decorator).endswith(f".register('{file.stem}')"):
                return node.name
    raise KeyError(f"{file} registers nothing under its own name")


def summary(file: Path) -> str:
    """The first line of the file's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]


def class_summary(file: Path, name: str) -> str:
    """The first sentence of what the class `name` in `file` says of itself; raises `KeyError`."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0].partition(". ")[0].removesuffix(".")
    raise KeyError(f"{file} defines no {name}")


def _parts(node: ast.ClassDef | ast.FunctionDef) -> list[tuple[ast.AST, str, ast.expr | None, ast.expr | None]]:
    """(syntax node, name, annotation, default) of each option."""
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                positional = member.args.args[1:]
                defaults = member.args.defaults
                optional = positional[len(positional) - len(defaults) :] if defaults else []
                pairs = list(zip(optional, defaults, strict=True))
                pairs += [(a, d) for a, d in _keyword_only(member) if d is not None]
                return [(a, a.arg, a.annotation, d) for a, d in pairs]
        fields = [m for m in node.body if isinstance(m, ast.AnnAssign) and isinstance(m.target, ast.Name)]
        options = [f for f in fields if not f.target.id.startswith("_") and "ClassVar" not in ast.unparse(f.annotation)]
        return [(f, f.target.id, f.annotation, f.value) for f in options]
    return [(a, a.arg, a.annotation, d) for a, d in _keyword_only(node)]


def _keyword_only(node: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    return list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))


def _option(
    node: ast.AST,
    name: str,
    annotation: ast.expr | None,
    default: ast.expr | None,
    comments: dict[int, tuple[str, bool]],
) -> Option:
    line = (default or node).end_lineno
    words = [comments[line][0]] if line in comments else []
    while words and (below := comments.get(line + 1)) and below[1]:
        words.append(below[0])
        line += 1
    value = REQUIRED if default is None else _literal(default)
    return Option(name, ast.unparse(annotation) if annotation else "str", value, " ".join(words))


def _literal(default: ast.expr) -> object:
    """The value of a default. A dataclass's `field(default_factory=dict)` or `=list` is an empty one of those."""
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
        factory = {k.arg: ast.unparse(k.value) for k in default.keywords}.get("default_factory")
        if factory in ("dict", "list"):
            return {} if factory == "dict" else []
    return ast.literal_eval(default)


def _comments(text: str) -> dict[int, tuple[str, bool]]:
    """line -> (comment's text, whether the line holds nothing else)."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            text = re.sub(r"^noqa: \w+", "", token.string.lstrip("# ")).strip()  # said to the linter, not the reader
            found[token.start[0]] = (text, token.line.lstrip().startswith("#"))
    return found

"""Public names have a docstring, and functions that raise an error name it under `Raises` or with the verb "raises".

A name is public if neither it nor the class it belongs to begins with an underscore. A method may be documented by its
class, or by the method of the same name in a class of the package that declares the interface.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vision_mtl"
TREES = {file: ast.parse(file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
RAISES = re.compile(r"\b[Rr]aises?\b")
IMPLICIT = {"__init__", "__post_init__", "__call__"}  # the class's docstring documents them
NOT_FOR_CALLERS = {"NotImplementedError", "KeyboardInterrupt", "AssertionError"}
INTERFACES = {"Source", "EncodedSource", "Pretext", "Decoder", "Balancing", "Objective", "Feed", "Recorder"}
CLASSES = {n.name: n for tree in TREES.values() for n in tree.body if isinstance(n, ast.ClassDef)}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def is_public(node: ast.stmt) -> bool:
    return isinstance(node, Documented) and not node.name.startswith("_")


def raised(function: ast.FunctionDef) -> set[str]:
    """The errors that a function's own body raises; a bare `raise` passes on another's, a nested function's are its
    own."""
    found, pending = set(), list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found.add(ast.unparse(error))
        pending += ast.iter_child_nodes(node)
    return found - NOT_FOR_CALLERS


def interface_docstrings(owner: ast.ClassDef, method: str) -> list[str]:
    """The docstrings of `method` in the bases of `owner` and in the package's interfaces."""
    bases = {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in owner.bases}
    nodes = [m for name in bases | INTERFACES if (base := CLASSES.get(name)) and base is not owner for m in base.body]
    return [ast.get_docstring(m) or "" for m in nodes if isinstance(m, ast.FunctionDef) and m.name == method]


def missing(tree: ast.Module) -> list[str]:
    """The public names of a file without a docstring."""
    found = []
    for node in filter(is_public, tree.body):
        found += [] if ast.get_docstring(node) else [node.name]
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            is_inherited = getattr(member, "name", "") == "forward" or not isinstance(member, ast.FunctionDef)
            if is_public(member) and not (is_inherited or ast.get_docstring(member)):
                found += [] if interface_docstrings(node, member.name) else [f"{node.name}.{member.name}"]
    return found


def unannounced(tree: ast.Module) -> list[str]:
    """The public functions and methods of a file that raise an error which no docstring announces."""
    found = []
    for node in filter(is_public, tree.body):
        if isinstance(node, ast.FunctionDef):
            # a stage's errors are the command's (docs/architecture.md)
            is_stage = any("STAGES.register" in ast.unparse(d) for d in node.decorator_list)
            if raised(node) and not is_stage and not RAISES.search(ast.get_docstring(node) or ""):
                found.append(node.name)
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if not isinstance(member, ast.FunctionDef) or member.name == "__post_init__":
                    continue  # options out of range are refused everywhere (docs/architecture.md)
                said = [ast.get_docstring(node) or "", ast.get_docstring(member) or ""]
                said += interface_docstrings(node, member.name)
                if (
                    (is_public(member) or member.name in IMPLICIT)
                    and raised(member)
                    and not RAISES.search(" ".join(said))
                ):
                    found.append(f"{node.name}.{member.name}")
    return found


def test_every_public_name_has_a_docstring() -> None:
    assert {str(f.relative_to(PACKAGE)): names for f, tree in TREES.items() if (names := missing(tree))} == {}


def test_errors_are_documented() -> None:
    assert {str(f.relative_to(PACKAGE)): names for f, tree in TREES.items() if (names := unannounced(tree))} == {}


@pytest.mark.parametrize(
    ("code", "without_docstring", "without_raises"),
    [
        ("def f():\n    'Does.'", [], []),
        ("def f():\n    pass\ndef _g():\n    raise ValueError", ["f"], []),
        ("def f():\n    'Does.'\n    raise ValueError(1)", [], ["f"]),
        ("def f():\n    'Does; raises ValueError.'\n    raise ValueError(1)", [], []),
        ("def f():\n    'Does.'\n    try:\n        pass\n    except OSError:\n        raise", [], []),
        (
            "class A:\n    'Is.'\n    def __init__(self):\n        raise OSError\n    def f(self): ...",
            ["A.f"],
            ["A.__init__"],
        ),
    ],
)
def test_offenders_are_found(code: str, without_docstring: list[str], without_raises: list[str]) -> None:
    tree = ast.parse(code)
    assert (missing(tree), unannounced(tree)) == (without_docstring, without_raises)

"""Public names say what they are; those that take or give arrays say their shapes, those that raise say so.

A name is public if neither it nor what it lies in begins with an underscore. What a method must say may stand in its
class's docstring, or with the method of the same name in the contract that it fulfils.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vision_mtl"
FILES = sorted(PACKAGE.rglob("*.py"))
ARRAY = re.compile(r"\b(Tensor|ndarray)\b")
# (B, C, H, W), (n,), (N, K), (*shape); or the words for what has any
SHAPE = re.compile(r"\(\*?[A-Za-z0-9_.']+(?: [*+] \w+)?(?:,(?: [^()]{1,40})?)+\)|\bscalars?\b|\bany shape\b")
RAISES = re.compile(r"\b[Rr]aises?\b|\b[Rr]efuse[sd]?\b")
IMPLICIT = {"__init__", "__post_init__", "__call__"}  # a class's docstring speaks for them
# an option out of range is refused everywhere, and a stage's errors are the command's (docs/architecture.md)
PROMISED = ("__post_init__", "@STAGES.register")


@dataclass(frozen=True)
class Public:
    """A public function or method with what is said of it: its own docstring, its class's, and its contract's."""

    name: str
    node: ast.FunctionDef
    said: str
    own: bool  # it has a docstring of its own, or needs none

    @property
    def arrays(self) -> bool:
        """Whether an argument or the answer is an array."""
        arguments = self.node.args
        annotated = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        parts = [a.annotation for a in annotated] + [self.node.returns]
        return any(ARRAY.search(ast.unparse(part)) for part in parts if part is not None)

    @property
    def raises(self) -> bool:
        """Whether its own body raises an error for its caller; a bare `raise` hands on another's."""
        decorators = " ".join(f"@{ast.unparse(d)}" for d in self.node.decorator_list)
        if any(word in f"{self.name} {decorators}" for word in PROMISED):
            return False
        inner = {
            n for f in ast.walk(self.node) if isinstance(f, ast.FunctionDef) and f is not self.node for n in ast.walk(f)
        }
        found = [n for n in ast.walk(self.node) if isinstance(n, ast.Raise) and n.exc is not None and n not in inner]
        return any(
            not ast.unparse(n.exc).startswith(("NotImplementedError", "KeyboardInterrupt", "AssertionError"))
            for n in found
        )


def classes() -> dict[str, list[ast.ClassDef]]:
    """Every class of the package by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


CLASSES = classes()
CONTRACTS = (
    "Source",
    "EncodedSource",
    "Pretext",
    "Decoder",
    "Balancing",
    "LabelKind",
    "Objective",
    "Feed",
    "Module",
    "Recorder",
    "Objective",
)


def public_names(file: Path) -> Iterator[Public]:
    """Every public function and method of a file."""
    text = file.read_text("utf-8")
    legend = "\n".join(line for line in text.splitlines() if line.startswith("# "))
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            said = ast.get_docstring(node) or ""
            yield Public(node.name, node, said + signature_comments(text, node), bool(said))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and (not member.name.startswith("_") or member.name in IMPLICIT):
                    yield method(text, node, member)
    assert legend is not None


def method(text: str, owner: ast.ClassDef, member: ast.FunctionDef) -> Public:
    """A method with all that is said of it."""
    own = ast.get_docstring(member) or ""
    contract = " ".join(contract_of(owner, member.name))
    said = " ".join([own, ast.get_docstring(owner) or "", contract, signature_comments(text, member)])
    needs_none = member.name in IMPLICIT or bool(contract)
    return Public(f"{owner.name}.{member.name}", member, said, bool(own) or needs_none)


def contract_of(owner: ast.ClassDef, name: str) -> list[str]:
    """What is said of the method `name` in the classes that `owner` is built on, and in the contracts of the
    package."""
    bases = [ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in owner.bases]
    found = []
    for base in [*bases, *CONTRACTS]:
        for node in CLASSES.get(base, []):
            found += [
                (ast.get_docstring(m) or "") + " "
                for m in node.body
                if isinstance(m, ast.FunctionDef) and m.name == name and node is not owner
            ]
    return found + (["nn.Module's forward"] if name == "forward" and not found and bases else [])


def signature_comments(text: str, node: ast.FunctionDef) -> str:
    """The comments beside a function's arguments."""
    lines = text.splitlines()[node.lineno - 1 : node.body[0].lineno]
    return " ".join(line.partition("# ")[2] for line in lines)


def names_of(files: list[Path]) -> list[tuple[str, Public]]:
    """(file and name, what it is) of every public function and method."""
    return [(f"{file.relative_to(PACKAGE)}: {found.name}", found) for file in files for found in public_names(file)]


EVERY = names_of(FILES)


def test_every_public_name_has_a_docstring() -> None:
    assert len(EVERY) > 500
    assert [name for name, found in EVERY if not found.own] == []


def test_arrays_have_shapes() -> None:
    with_arrays = [(name, found) for name, found in EVERY if found.arrays]
    assert len(with_arrays) > 150
    assert [name for name, found in with_arrays if not SHAPE.search(found.said)] == []


def test_errors_are_announced() -> None:
    raising = [(name, found) for name, found in EVERY if found.raises]
    assert len(raising) > 80
    assert [name for name, found in raising if not RAISES.search(found.said)] == []


@pytest.mark.parametrize(
    ("text", "arrays", "raises"),
    [
        ('def f(x: Tensor) -> None:\n    """Does."""', True, False),
        ('def f(x: int) -> np.ndarray | None:\n    """(n,) of them."""', True, False),
        ('def f(x: int) -> int:\n    """Does."""\n    raise ValueError(x)', False, True),
        (
            'def f(x: int) -> int:\n    """Does."""\n    try:\n        pass\n    except OSError:\n        raise',
            False,
            False,
        ),
    ],
)
def test_the_rules_see_what_they_should(text: str, arrays: bool, raises: bool) -> None:
    node = ast.parse(text).body[0]
    found = Public("f", node, ast.get_docstring(node) or "", True)
    assert (found.arrays, found.raises) == (arrays, raises)
    assert bool(SHAPE.search(found.said)) == ("(n,)" in text)

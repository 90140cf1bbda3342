"""The house: imports go one way, files stay short, and no drawer for odds and ends appears."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vision_mtl"
# from the top down: a room may import those below it
ORDER = [
    "api",
    "cli",
    "stages",
    "explorer",
    "export",
    "recipes",
    "inference",
    "config",
    "study",
    "discovery",
    "training",
    "evaluation",
    "tasks",
    "pretext",
    "models",
    "data",
    "viz",
    "core",
]
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {"utils", "util", "misc", "common", "helpers", "helper"}


def imported(file: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "vision_mtl" and len(parts) > 1 and parts[1] in ORDER else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_downward_and_files_are_short(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0]
    if own in ORDER:
        above = ORDER[: ORDER.index(own)]
        assert not {module for module in imported(file) if room(module) in above}
    assert len(file.read_text("utf-8").splitlines()) <= 400
    assert not FORBIDDEN & {part.lower() for part in (*file.relative_to(PACKAGE).parts[:-1], file.stem)}
    assert ast.get_docstring(ast.parse(file.read_text("utf-8"))), "no docstring"


def test_every_room_has_its_place() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms == set(ORDER)


def test_judges_know_neither_pretext_nor_trainer() -> None:
    for file in (PACKAGE / "evaluation").glob("*.py"):
        assert not {m for m in imported(file) if room(m) in ("pretext", "training", "discovery", "stages")}


def test_figures_know_nothing_but_arrays() -> None:
    for file in (PACKAGE / "viz").glob("*.py"):
        assert {room(m) for m in imported(file)} <= {None, "viz"}
        assert not any(m.startswith("torch") for m in imported(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_public_functions_are_typed_and_documented(file: Path) -> None:
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
        for function in [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]:
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not untyped, f"{function.name}: {untyped}"
            assert function.returns is not None, f"{function.name} has no return type"


def test_one_file_knows_of_torchvisions_operators() -> None:
    knowing = [f for f in FILES if "nms" in f.read_text("utf-8") and "torchvision" in f.read_text("utf-8")]
    assert [f.name for f in knowing] == ["torchvision_ops.py"]


def test_the_front_door_is_short() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) < 60


@pytest.mark.parametrize(
    "file", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda file: file.name
)
def test_links_of_the_documents_lead_somewhere(file: Path) -> None:
    import re

    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (file.parent / target).exists(), target


def test_only_the_console_prints() -> None:
    speaking = {"core/console.py", "cli/command.py"}  # the latter answers --help, --version and --print_config
    found = set()
    for file in FILES:
        calls = [n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call)]
        if any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls):
            found.add(str(file.relative_to(PACKAGE)))
    assert found == speaking

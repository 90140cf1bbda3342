"""The package's layout: imports go one way and have no cycle, files stay short, names are typed and documented.

Each test looks at all files and lists the offenders.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vision_mtl"
# from the top down: a package may import those below it
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
TREES = {file: ast.parse(file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
NODES = {file: list(ast.walk(tree)) for file, tree in TREES.items()}  # walked once: it takes half a second
FORBIDDEN = {"utils", "util", "misc", "common", "helpers", "helper"}
MAX_LINES = 400

Graph = Mapping[str, set[str]]


def short(file: Path) -> str:
    """The file's path within the package."""
    return file.relative_to(PACKAGE).as_posix()


def module_name(file: Path) -> str:
    """`vision_mtl.data.pool` for `vision_mtl/data/pool.py`; a package's name for its `__init__.py`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that a file imports anywhere: at the top, inside a function, or under TYPE_CHECKING."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_of(module: str) -> str:
    """`data` for `vision_mtl.data.pool`; the empty string for other libraries and for the top package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "vision_mtl" and len(parts) > 1 and parts[1] in ORDER else ""


@cache
def import_graph() -> dict[str, set[str]]:
    """Module -> the package's own modules that it imports."""
    names = {module_name(file) for file in TREES}

    def module(name: str) -> str:  # `vision_mtl.data.pool.Pool` is imported from `vision_mtl.data.pool`
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name

    return {
        (own := module_name(file)): {m for n in imported(nodes) if (m := module(n)) and m != own}
        for file, nodes in NODES.items()
    }


def cycles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node, each sorted (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


def package_graph(graph: Graph) -> dict[str, set[str]]:
    """Package -> the other packages that its modules import."""
    found: dict[str, set[str]] = {name: set() for name in ORDER}
    for module, targets in graph.items():
        if own := package_of(module):
            found[own] |= {other for target in targets if (other := package_of(target)) not in ("", own)}
    return found


def calls(nodes: Iterable[ast.AST], name: str) -> bool:
    """Whether a file calls the function `name`; `model.eval()` is a method and does not count."""
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name for n in nodes)


def test_imports_go_downward() -> None:
    offenders = []
    for file, nodes in NODES.items():
        if own := package_of(module_name(file)):
            above = ORDER[: ORDER.index(own)]
            offenders += [f"{short(file)} imports {m}" for m in sorted(imported(nodes)) if package_of(m) in above]
    assert offenders == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{short(file)}:{n.lineno}"
        for file, nodes in NODES.items()
        for n in nodes
        if isinstance(n, ast.ImportFrom) and n.level
    ]
    assert relative == []


def test_no_cycle_between_modules() -> None:
    assert cycles(import_graph()) == []


def test_no_cycle_between_packages() -> None:
    assert cycles(package_graph(import_graph())) == []


def test_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}) == [["a", "b", "c"], ["d", "e"]]
    late = "def f():\n    from vision_mtl.data import pool\nif TYPE_CHECKING:\n    import vision_mtl.core.run\n"
    assert imported(ast.walk(ast.parse(late))) == {"vision_mtl.data.pool", "vision_mtl.core.run"}


def test_every_package_has_its_place() -> None:
    packages = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert packages == set(ORDER)


def test_evaluation_knows_neither_pretext_nor_trainer() -> None:
    graph = package_graph(import_graph())
    assert not graph["evaluation"] & {"pretext", "training", "discovery", "stages"}


def test_figures_know_nothing_but_arrays() -> None:
    own = {file: nodes for file, nodes in NODES.items() if package_of(module_name(file)) == "viz"}
    assert package_graph(import_graph())["viz"] == set()
    assert [short(f) for f, nodes in own.items() if any(m.startswith("torch") for m in imported(nodes))] == []


def test_files_are_short_and_have_a_docstring() -> None:
    long = [short(file) for file in TREES if len(file.read_text("utf-8").splitlines()) > MAX_LINES]
    undocumented = [short(file) for file, tree in TREES.items() if not ast.get_docstring(tree)]
    assert (long, undocumented) == ([], [])


def test_no_name_is_a_catch_all() -> None:
    parts = {file: {part.lower() for part in file.relative_to(PACKAGE).with_suffix("").parts} for file in TREES}
    assert [short(file) for file, found in parts.items() if found & FORBIDDEN] == []


def test_signatures_are_typed() -> None:
    offenders = []
    for file, nodes in NODES.items():
        for function in [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]:
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            untyped += ["return"] if function.returns is None else []
            offenders += [f"{short(file)}: {function.name}({name})" for name in untyped]
    assert offenders == []


def test_no_source_is_parsed_or_evaluated() -> None:
    evaluating = [f"{short(file)} calls eval" for file, nodes in NODES.items() if calls(nodes, "eval")]
    parsing = [f"{short(file)} imports ast" for file, nodes in NODES.items() if "ast" in imported(nodes)]
    assert evaluating + parsing == []


def test_one_file_knows_of_torchvisions_operators() -> None:
    texts = {file: file.read_text("utf-8") for file in TREES}
    assert [f.name for f, text in texts.items() if "nms" in text and "torchvision" in text] == ["torchvision_ops.py"]


def test_only_the_console_prints() -> None:
    # through one function, which works with any encoding and with a closed pipe
    assert {short(file) for file, nodes in NODES.items() if calls(nodes, "print")} == {"core/streams.py"}


def test_train_py_is_short() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) < 60


def test_links_of_the_documents_lead_somewhere() -> None:
    broken = []
    for file in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text("utf-8")):
            if not target.startswith(("http://", "https://")) and not (file.parent / target).exists():
                broken.append(f"{file.name}: {target}")
    assert broken == []

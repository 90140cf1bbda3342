"""The commit in `environment.json` says whether it holds all of the code."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import vision_mtl.core.environment as original


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return what it says."""
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    command = ["git", *author, *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def copied(folder: Path) -> ModuleType:
    """Return the module, loaded from a copy in a repository of its own."""
    file = folder / "vision_mtl" / "core" / "environment.py"
    file.parent.mkdir(parents=True)
    file.write_text(Path(original.__file__).read_text("utf-8"))
    spec = importlib.util.spec_from_file_location("copied_environment", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_changed_code_is_marked(tmp_path: Path) -> None:
    module = copied(tmp_path)
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "step.json").write_text("{}")
    (tmp_path / "README.md").write_text("a")
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    (results / "step.json").write_text('{"written": "by the benchmark before"}')
    (tmp_path / "README.md").write_text("b")
    assert module.environment()["commit"] == head
    for changed in ("vision_mtl/new.py", "benchmarks/new.py", "vision_mtl/core/environment.py", "train.py"):
        path = tmp_path / changed
        before = path.read_text("utf-8") if path.exists() else None
        path.write_text("# new\n")
        assert module.environment()["commit"] == f"{head}+changes", changed
        path.unlink() if before is None else path.write_text(before)
    assert module.environment()["commit"] == head

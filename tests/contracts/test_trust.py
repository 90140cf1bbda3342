"""Nothing that is loaded can execute: no pickle, no unsafe YAML, no code from data, anywhere in the package."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.training.checkpoint import find_checkpoint

PACKAGE = Path(__file__).parents[2] / "vision_mtl"
FORBIDDEN_MODULES = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "xml.etree.ElementTree"}
# of a module: what loads or unpacks without a look at what it is
FORBIDDEN_CALLS = {"torch.load", "torch.hub.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"}
FORBIDDEN_NAMES = {"exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"extractall", "extract", "unpack_archive"}
# they send our own functions to workers of ours, and load no file
DEALS_OUT = {"runner.py: joblib", "processes.py: joblib", "processes.py: joblib.externals.loky"}
ALLOWED_EVAL = "config/resolve.py"  # of annotations in our own signatures, never of what a user wrote


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield str(file.relative_to(PACKAGE)), node


def test_no_call_executes_what_it_loads() -> None:
    found = []
    for file, call in calls():
        name, keywords = ast.unparse(call.func), {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        bad = name in FORBIDDEN_CALLS | FORBIDDEN_NAMES or name.rpartition(".")[2] in FORBIDDEN_METHODS
        bad &= not (name == "torch.load" and keywords.get("weights_only") == "True")  # tensors and plain containers
        bad |= name == "eval" and file != ALLOWED_EVAL
        bad |= (
            keywords.get("allow_pickle") == "True" or keywords.get("shell") == "True" or "trust_remote_code" in keywords
        )
        found += [f"{file}:{call.lineno}: {name}"] if bad else []
    assert found == []


def test_no_module_that_unpickles_is_imported() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file.name}: {name}" for name in names if name in FORBIDDEN_MODULES]
    assert set(found) <= DEALS_OUT


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["weights.pt", "best.safetensors", "step-00000001.safetensors"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(tmp_path: Path, name: str, how: str) -> None:
    trace, file = tmp_path / "trace", tmp_path / "run" / "checkpoints" / name
    file.parent.mkdir(parents=True)
    if how == "torch":
        torch.save(Malicious(trace), file)
    else:
        file.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(UserError, match="is not a checkpoint of this project, or is damaged"):
        find_checkpoint(file)
    if name.endswith(".safetensors"):
        with pytest.raises(UserError, match=r"no checkpoint in|is not a checkpoint"):
            find_checkpoint(tmp_path / "run")
    assert not trace.exists()


def test_a_malicious_config_is_refused_and_does_nothing(tmp_path: Path) -> None:
    from vision_mtl.cli.command import main

    trace, file = tmp_path / "trace", tmp_path / "evil.yaml"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{trace}']\n")
    assert main(["--stage", "pretrain", "--config", str(file), "--print_config"]) == 2
    words = ["--stage", "pretrain", "--print_config", "--backbone.kwargs.x"]
    assert main([*words, f"!!python/object/apply:os.mkdir ['{trace}']"]) == 2
    assert not trace.exists()


def test_the_home_folder_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vision_mtl.core.environment import environment

    home = str(Path.home())
    monkeypatch.setattr(sys, "argv", ["train.py", "--run_dir", f"{home}/runs/a", f"--data.root={home}/data"])
    assert environment()["command"] == ["train.py", "--run_dir", "~/runs/a", "--data.root=~/data"]

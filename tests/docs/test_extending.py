"""docs/extending.md as written: its files go into a copy of the package, pass the contracts, and train together."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # the document's programs in processes of their own

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/extending.md").read_text("utf-8")
SMALL = ["--image_size", "32", "--backbone.name", "test_resnet", "--optim.steps", "2", "--optim.batch_size", "8"]
# the contract tests of the new components, then the command: one process, one import of PyTorch
DRIVER = """
import json, sys, pytest
from vision_mtl.cli.command import main
tests = [f"tests/contracts/test_{name}.py" for name in ("pretexts", "packages", "label_kinds", "stages")]
plain = ["-o", "addopts=--strict-markers", "-p", "no:cacheprovider"]  # in this process
code = pytest.main([*tests, *plain, "-x", "-k", "mirrored or ordinal or brightness or (test_packages and not links)"])
joint, finetune = json.loads(sys.argv[1])
sys.exit(code or main(joint) or main(finetune))
"""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for named, text in found if named == language]


def test_the_worked_example_runs_as_written(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("vision_mtl", "tests/contracts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    modules = [f"tests/{name}.py" for name in ("conftest", "command_fixtures", "random_targets")]
    for name in (*modules, "README.md", "train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    written = []
    for text in blocks("python"):
        place = re.match(r"# (vision_mtl/\S+\.py)\n", text)
        assert place and not (ROOT / place[1]).exists(), "a block begins with the new file's path"
        (tmp_path / place[1]).write_text(text.removeprefix(place[0]))
        written.append(place[1])
    assert len(written) == 6
    commands = [shlex.split(command.replace("\\\n", " ")) for command in blocks("")]
    assert all(words[:2] == ["python", "train.py"] for words in commands)
    runs = [[*words[2:], "--run_dir", words[3], "--device", "cpu", *SMALL] for words in commands]
    driver = [sys.executable, "-c", DRIVER, json.dumps(runs)]
    done = subprocess.run(driver, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"\d\d+ passed", done.stdout), done.stdout[-3000:]
    result = json.loads((tmp_path / "joint" / "result.json").read_text())
    assert "mirrored" in result["metrics"]["skill"] and "accuracy" in result["metrics"]["tasks"]["stripes"]
    record = (tmp_path / "joint" / "metrics.jsonl").read_text()
    assert "loss.mirrored" in record
    scores = json.loads((tmp_path / "finetune" / "result.json").read_text())["metrics"]["tasks"]["stripes"]
    assert scores["kind"] == "ordinal" and 0 <= scores["accuracy"]["value"] <= 1
    assert 0 <= scores["steps_off"]["value"] <= 2


def test_the_example_has_the_houses_form(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("python")):
        (tmp_path / f"block_{number}.py").write_text(text.partition("\n")[2])
    for command in (["check"], ["format", "--check"]):
        settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

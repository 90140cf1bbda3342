"""docs/api.md as written: its programs run in order in an empty folder, and each program also runs alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # trains in processes of their own

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/api.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
BLOCKS = [block.replace("resnet18", "test_resnet") for block in BLOCKS]  # the documents' network, for a test's time
PROGRAMS = [block for block in BLOCKS if block.startswith("import ")]  # those that need no block before them


def run(program: str, folder: Path) -> str:
    """What a program prints in an empty folder, where the package is importable."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert len(BLOCKS) >= 6
    printed = run("\n".join(BLOCKS), tmp_path)
    assert "Score(" in printed and "torch.Size([64, 96])" in printed
    assert (tmp_path / "runs" / "tuned" / "result.json").is_file()


def test_the_plain_loop_uses_two_names_of_ours_and_writes_no_file(tmp_path: Path) -> None:
    assert len(PROGRAMS) == 3
    (loop,) = [program for program in PROGRAMS if "optimiser.step()" in program]
    assert set(re.findall(r"\bvm\.([a-z]\w*)", loop)) == {"build_model", "repair_loss"}
    assert "torch.Size([64, 96])" in run(loop, tmp_path) and not list(tmp_path.iterdir())


def test_a_program_has_about_ten_lines() -> None:
    assert all(len([line for line in program.splitlines() if line.strip()]) <= 15 for program in PROGRAMS)

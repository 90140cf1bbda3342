"""torchvision imports beside any PyTorch, and a torchvision whose operators load is left as it is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vision_mtl.core import torchvision_ops

ROOT = Path(__file__).parents[2]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_alone_imports_neither() -> None:
    code = "import vision_mtl, sys; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    assert python(code).split() == ["False", "False"]


@pytest.mark.slow
def test_torchvision_and_timm_import() -> None:
    code = "import vision_mtl, torchvision, timm; print(torchvision.datasets.MNIST.__name__)"
    assert python(code).strip() == "MNIST"


def test_operators_that_load_are_not_declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_C.so").touch()
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert torchvision_ops.operators_load(tmp_path)


def test_operators_that_do_not_load_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not torchvision_ops.operators_load(tmp_path)

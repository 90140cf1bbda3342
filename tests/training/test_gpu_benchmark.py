"""benchmarks/gpu.py on the CPU with a tiny model, so that it is tested without a GPU."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """Return the script as a module, and restore `sys.path`, which it changes."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))  # as when a script is run from there, which the script removes
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look modules up there
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def numbers(found: Any) -> list[float]:
    """Return every number in nested mappings."""
    if isinstance(found, dict):
        return [number for value in found.values() for number in numbers(value)]
    return [] if found is None else [float(found)]


@pytest.mark.slow
def test_its_numbers_are_plausible(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = {}
    measure = gpu.measure
    monkeypatch.setattr(gpu, "measure", lambda *given: found.update(measure(*given)) or found)
    monkeypatch.setattr(gpu, "write", lambda *_: pytest.fail("the numbers of a tiny model are not a result"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--blocks", "2", "--peak", "1"])
    assert gpu.main() == 0
    assert all(math.isfinite(number) for number in numbers(found)) and len(numbers(found)) >= 16
    assert found["recompiles"] == 0 and 0 < found["damage_share"] < 1
    step = found["seconds"]["ours"]["median"]
    assert found["images_per_second"] == pytest.approx(8 / step)
    assert found["to_plain"]["value"] == pytest.approx(found["seconds"]["plain"]["median"] / step)
    assert found["utilisation"] == pytest.approx(found["model_tflop_per_step"] / step)
    # 12 blocks of width 192 on a class token and 4 of 16 patches; backward is twice forward; the rest is small
    blocks = 3 * 8 * 5 * 12 * (2 * 12 * 192**2 + 4 * 5 * 192)
    assert 1 < found["model_tflop_per_step"] * 1e12 / blocks < 1.2
    # grey is the best prediction for noise, so both losses are near 1 if both do the same task
    assert 0.8 < found["losses"]["ours"] < 1.5 and 0.8 < found["losses"]["plain"] < 1.5
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0] == f"images a second: {found['images_per_second']:.0f}"


@pytest.mark.parametrize("lacks", ["device", "memory"])
def test_a_missing_gpu_or_too_little_memory_is_one_line(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacks: str
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: lacks == "memory")
    monkeypatch.setattr(gpu, "measure", full)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == {
            "device": "benchmarks/gpu.py needs a CUDA GPU, and there is none here.",
            "memory": "256 images a step do not fit into the device's memory: give a smaller --batch.",
        }[lacks]
    )


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L40", 181),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_the_peak_is_that_of_the_exact_card(gpu: ModuleType, card: str, peak: float | None) -> None:
    assert gpu.peak_of(card) == peak

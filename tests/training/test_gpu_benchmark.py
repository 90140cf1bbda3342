"""benchmarks/gpu.py, which nobody can try where there is no GPU: in miniature, on the CPU."""

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
    """The script as a module; the path that it mends for itself is put back."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))  # as where a script is run from it, which takes it away
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def numbers(found: Any) -> list[float]:
    """Every number in it, however deep."""
    if isinstance(found, dict):
        return [number for value in found.values() for number in numbers(value)]
    return [] if found is None else [float(found)]


@pytest.mark.slow
def test_its_figures_are_sound(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = {}
    measure = gpu.measure
    monkeypatch.setattr(gpu, "measure", lambda *given: found.update(measure(*given)) or found)
    monkeypatch.setattr(gpu, "write", lambda *_: pytest.fail("a miniature's figures are no result"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--blocks", "2", "--peak", "1"])
    assert gpu.main() == 0
    assert all(math.isfinite(number) for number in numbers(found)) and len(numbers(found)) >= 16
    assert found["recompiles"] == 0 and 0 < found["damage_share"] < 1
    step = found["seconds"]["ours"]["median"]
    assert found["images_per_second"] == pytest.approx(8 / step)
    assert found["to_plain"]["value"] == pytest.approx(found["seconds"]["plain"]["median"] / step)
    assert found["utilisation"] == pytest.approx(found["model_tflop_per_step"] / step)
    # 12 blocks of width 192 on a class token and 4 of 16 patches, forward and twice that backward; the rest is small
    blocks = 3 * 8 * 5 * 12 * (2 * 12 * 192**2 + 4 * 5 * 192)
    assert 1 < found["model_tflop_per_step"] * 1e12 / blocks < 1.2
    # noise can be answered with grey and nothing better: both are near 1, or one does another task
    assert 0.8 < found["losses"]["ours"] < 1.5 and 0.8 < found["losses"]["plain"] < 1.5
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 7 and said[0] == f"images a second: {found['images_per_second']:.0f}"


@pytest.mark.parametrize("lacks", ["device", "memory"])
def test_what_the_machine_lacks_is_one_line(
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
def test_a_peak_is_that_of_the_very_card(gpu: ModuleType, card: str, peak: float | None) -> None:
    assert gpu.peak_of(card) == peak

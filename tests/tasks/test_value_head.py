"""A head of numbers: precise in the labels' unit, whatever their size, and readable from earlier checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vision_mtl.tasks.regression import ValueHead

UNITS = [(1_700_000_011.5, 6.9), (170.0, 12.0), (-3e37, 1e37), (1e-30, 1e-31), (1.7e18, 1e14)]
MAPS = torch.randn(5, 6, 2, 3, generator=torch.Generator().manual_seed(0))


def head_of(offset: float, scale: float) -> ValueHead:
    torch.manual_seed(0)
    head = ValueHead(6, offset, scale)
    nn.init.normal_(head.project.weight)
    return head


def numbers(head: nn.Module) -> Tensor:
    with torch.no_grad():
        return head.probabilities(head(MAPS))


@pytest.mark.parametrize(("offset", "scale"), UNITS)
def test_numbers_are_float64_in_the_labels_unit(offset: float, scale: float) -> None:
    head = head_of(offset, scale)
    found, outputs = numbers(head), head(MAPS).detach()
    assert found.dtype == torch.float64 and outputs.dtype == torch.float32
    torch.testing.assert_close((found - offset) / scale, outputs.double(), rtol=1e-6, atol=4e-15 * abs(offset / scale))
    assert head.unit == (pytest.approx(offset, rel=1e-14), pytest.approx(scale, rel=1e-14))
    assert all(buffer.dtype == torch.float32 for buffer in head.buffers())  # some devices have nothing wider


@pytest.mark.parametrize(("offset", "scale"), UNITS[:2])
def test_another_unit_changes_no_prediction(offset: float, scale: float) -> None:
    head = head_of(offset, scale)
    before = numbers(head)
    head.set_unit(offset + 3 * scale, scale / 2)
    torch.testing.assert_close(numbers(head), before, rtol=0, atol=1e-5 * scale)
    assert head.unit == (pytest.approx(offset + 3 * scale), pytest.approx(scale / 2))
    state = copy.deepcopy(head.state_dict())
    head.set_unit(*head.unit)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_earlier_checkpoints_load() -> None:
    """They hold the unit as one float32 number each."""
    old = head_of(170.3, 12.1).state_dict()
    del old["offset_rest"], old["scale_rest"]
    head = head_of(1.0, 1.0)
    head.load_state_dict(old)
    assert head.unit == (float(torch.tensor(170.3)), float(torch.tensor(12.1)))
    other = head_of(1e9 + 0.1, 7.7)
    unit = other.unit
    other.load_state_dict({"norm.weight": torch.ones(6)}, strict=False)  # a file without a head
    assert other.unit == unit


def test_a_module_in_lower_precision_keeps_the_unit() -> None:
    head = head_of(1_700_000_011.5, 6.9)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = head.probabilities(head(MAPS))
    torch.testing.assert_close(found, numbers(head), rtol=0, atol=0.5)  # bfloat16 in units of the deviation

"""Heads of tasks: probabilities or numbers in the labels' unit, and the buffers saved with their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.data.label_kinds import TaskHeadSpec, label_kind
from vision_mtl.tasks.heads import ClassHead, DenseHead
from vision_mtl.tasks.regression import ValueHead

SIZE = (10, 14)


def head_of(spec: TaskHeadSpec) -> nn.Module:
    torch.manual_seed(0)
    head = label_kind(spec.kind).head(spec, 6, (5, 4), SIZE)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def features(spec: TaskHeadSpec) -> Tensor:
    random = torch.Generator().manual_seed(1)
    shape = (3, 5, 3, 4) if spec.is_dense else (3, 6, 2, 3)
    return torch.randn(shape, generator=random)


@pytest.mark.parametrize("kind", ["single_label", "dense"])
def test_probabilities_sum_to_1_and_a_temperature_softens_them(kind: str) -> None:
    spec = TaskHeadSpec(kind, 4)
    head = head_of(spec)
    outputs = head(features(spec)).detach()
    assert outputs.shape == ((3, 4, *SIZE) if kind == "dense" else (3, 4))
    plain = head.probabilities(outputs)
    torch.testing.assert_close(plain.sum(1), torch.ones_like(plain[:, 0]))
    head.temperature.fill_(2.5)
    soft = head.probabilities(outputs)
    power = plain.double() ** (1 / 2.5)
    torch.testing.assert_close(soft.double(), power / power.sum(1, keepdim=True), atol=1e-6, rtol=1e-5)
    assert torch.equal(soft.argmax(1), plain.argmax(1)) and bool((soft.amax(1) < plain.amax(1)).all())


def test_labels_are_independent_of_each_other() -> None:
    spec = TaskHeadSpec("multi_label", 4)
    head = head_of(spec)
    outputs = head(features(spec)).detach()
    head.temperature.fill_(2.0)
    np.testing.assert_allclose(head.probabilities(outputs), 1 / (1 + np.exp(-outputs.numpy() / 2)), rtol=1e-5)
    changed = outputs.clone()
    changed[:, 1] += 5
    assert torch.equal(head.probabilities(changed)[:, [0, 2, 3]], head.probabilities(outputs)[:, [0, 2, 3]])


def test_a_number_is_in_the_labels_unit() -> None:
    spec = TaskHeadSpec("regression", 1, offset=170.0, scale=12.0)
    head = head_of(spec)
    maps = features(spec)
    pooled = F.layer_norm(maps.mean((2, 3)), (6,), head.norm.weight, head.norm.bias)
    expected = (pooled @ head.project.weight.T + head.project.bias).double() * 12 + 170
    found = head.probabilities(head(maps))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    fresh = label_kind(spec.kind).head(spec, 6, (5, 4), SIZE)
    start = fresh.probabilities(fresh(maps)).detach().flatten().tolist()
    assert start == pytest.approx([170] * 3, abs=0.5)  # the labels' mean


def test_a_pixels_class_depends_on_its_cell() -> None:
    """A readout that differs in one cell changes only that cell's 4 x 4 pixels."""
    spec = TaskHeadSpec("dense", 2)
    head, maps = head_of(spec), features(spec)
    other = maps.clone()
    other[0, :, 1, 2] += 1
    changed = (head(maps) != head(other)).any(1)
    expected = torch.zeros(3, *SIZE, dtype=torch.bool)
    expected[0, 4:8, 8:12] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (TaskHeadSpec("single_label", 3), ClassHead),
        (TaskHeadSpec("multi_label", 3), ClassHead),
        (TaskHeadSpec("regression", 1, 5.0, 2.0), ValueHead),
        (TaskHeadSpec("dense", 3), DenseHead),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_unit_and_temperature_are_saved_with_the_weights(spec: TaskHeadSpec, kind: type[nn.Module]) -> None:
    head = head_of(spec)
    assert type(head) is kind and spec.is_dense == (kind is DenseHead)
    for buffer in head.buffers():
        buffer.fill_(3.5)
    other = label_kind(spec.kind).head(TaskHeadSpec(spec.kind, spec.num_outputs), 6, (5, 4), SIZE)
    other.load_state_dict(head.state_dict())
    assert [float(buffer) for buffer in other.buffers()] == [3.5] * (4 if kind is ValueHead else 1)
    outputs = head(features(spec))
    assert torch.equal(other.probabilities(other(features(spec))), head.probabilities(outputs))

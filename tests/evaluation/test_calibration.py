"""Temperature scaling: known temperatures are recovered, and too few images leave it at 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.calibration import FEWEST, fit_temperature

ONE_CLASS = label_kind("single_label")


def drawn(count: int = 4000, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and classes drawn from their probabilities, hence of temperature 1."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, classes, generator=random)
    return logits, torch.multinomial(torch.softmax(logits, 1), 1, generator=random)[:, 0]


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.25])
def test_a_known_temperature_is_recovered(factor: float) -> None:
    logits, true = drawn()
    assert fit_temperature(ONE_CLASS, factor * logits, true) == pytest.approx(factor, rel=0.06)


def test_no_other_temperature_has_less_loss() -> None:
    logits, true = drawn(300)
    found = fit_temperature(ONE_CLASS, 3 * logits, true)

    def loss(temperature: float) -> float:
        return -log_softmax(3 * logits.double().numpy() / temperature, axis=1)[np.arange(300), true.numpy()].mean()

    grid = np.geomspace(0.05, 20, 2001)
    assert loss(found) <= min(loss(t) for t in grid) + 1e-9
    assert found == pytest.approx(grid[int(np.argmin([loss(t) for t in grid]))], rel=0.01)


def test_a_known_temperature_of_several_labels_is_recovered() -> None:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3000, 3, generator=random)
    true = torch.bernoulli(torch.sigmoid(logits), generator=random)
    assert fit_temperature(label_kind("multi_label"), 3 * logits, true) == pytest.approx(3, rel=0.06)


def test_fewer_than_ten_images_leave_it_at_1() -> None:
    logits, true = drawn()
    assert FEWEST == 10
    assert fit_temperature(ONE_CLASS, 3 * logits[:9], true[:9]) == 1.0
    assert fit_temperature(ONE_CLASS, 3 * logits[:10], true[:10]) != 1.0


def test_random_logits_have_the_largest_temperature_and_perfect_ones_the_smallest() -> None:
    logits, _ = drawn(400)
    assert fit_temperature(ONE_CLASS, logits, logits.argmin(1)) == pytest.approx(20, rel=0.01)
    assert fit_temperature(ONE_CLASS, logits, logits.argmax(1)) < 0.5

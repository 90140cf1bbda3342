"""Detectable differences before the runs are those of `evaluation.power`, at the level of Holm's first step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vision_mtl.evaluation.power import minimum_detectable
from vision_mtl.study.design import detectable_differences


def pool(kind: str, images: int, clusters: int) -> SimpleNamespace:
    return SimpleNamespace(
        targets={"t": SimpleNamespace(kind=kind)},
        cluster=np.arange(images) % clusters,
        indices=lambda split, task: torch.arange(images),
    )


def test_a_row_for_each_comparison() -> None:
    pairs = [("a", "b"), ("c", "b")]
    found = detectable_differences(pool("single_label", 400, 100), pairs, [0.1, 1.0], 5, 0.03)
    assert found["expected_std"] == 0.03 and len(found["rows"]) == 4
    by_hand = minimum_detectable(np.hypot(0.03, 0.5 / 10), 5, alpha=0.05 / 4, image_error=0.065 / 10, num_clusters=100)
    assert all(row["minimum_detectable"] == pytest.approx(by_hand) for row in found["rows"])
    assert {(row["arm"], row["fraction"]) for row in found["rows"]} == {("a", 0.1), ("a", 1.0), ("c", 0.1), ("c", 1.0)}


@pytest.mark.parametrize(("images", "achieved"), [(338, 0.0498), (83, 0.0994), (295, 0.0551)])
def test_the_plan_agrees_with_a_finished_study(images: int, achieved: float) -> None:
    """Median detectable difference after a study of 8 seeds and 8 comparisons, by the number of test images."""
    pairs = [(str(number), "b") for number in range(8)]
    (row, *_) = detectable_differences(pool("single_label", images, images), pairs, [0.1], 8, 0.01)["rows"]
    assert row["minimum_detectable"] == pytest.approx(achieved, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "clusters", "seeds"), [("regression", 9, 5), ("single_label", 1, 5), ("single_label", 9, 1)]
)
def test_an_unknown_difference_is_none(kind: str, clusters: int, seeds: int) -> None:
    (row,) = detectable_differences(pool(kind, 9, clusters), [("a", "b")], [1.0], seeds, 0.02)["rows"]
    assert row["minimum_detectable"] is None

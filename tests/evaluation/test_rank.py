"""The effective rank by hand, and for collapsed embeddings."""

import math

import pytest
import torch

from vision_mtl.evaluation.rank import COLLAPSED, effective_rank


def test_it_is_the_exponential_of_the_entropy() -> None:
    """Orthogonal rows of lengths 3 and 1: shares 3/4 and 1/4."""
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.tensor([[3.0, 0, 0], [0, 1.0, 0]])) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(torch.eye(7)) == pytest.approx(7, rel=1e-5)


def test_collapse_is_below_the_bound_and_two_classes_are_not() -> None:
    torch.manual_seed(0)
    one = torch.randn(1, 64)
    assert effective_rank(one + 1e-3 * torch.randn(100, 64)) < COLLAPSED
    two = torch.cat([one.repeat(50, 1), torch.randn(1, 64).repeat(50, 1)])
    assert COLLAPSED < effective_rank(two) < 2.01
    assert effective_rank(torch.zeros(9, 4)) < COLLAPSED


def test_non_finite_embeddings_have_no_rank() -> None:
    assert math.isnan(effective_rank(torch.full((3, 3), float("inf"))))

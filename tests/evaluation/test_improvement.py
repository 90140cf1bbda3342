"""The probability of improvement: by hand, against scipy's Mann-Whitney U, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from vision_mtl.evaluation.improvement import probability_of_improvement


def test_by_hand() -> None:
    found = probability_of_improvement(np.array([[1.0, 3.0]]), np.array([[2.0, 3.0]]))
    assert found.value == (0 + 0 + 1 + 0.5) / 4 and found.n == 2
    both = probability_of_improvement(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([[2.0, 3.0], [4.0, 4.0]]))
    assert both.value == (0.375 + 1) / 2  # tasks weigh equally


def test_it_is_mann_whitney_on_one_task() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1, 9))
    expected = mannwhitneyu(a[0], b[0]).statistic / 81
    assert probability_of_improvement(a, b).value == pytest.approx(expected)


def test_the_interval_resamples_seeds_with_all_their_tasks() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 3, 8))
    found, turned = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert 0 <= found.low < found.value < found.high <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))
    assert probability_of_improvement(a, b) == found  # the same data give the same interval
    copies = probability_of_improvement(np.tile(a[:1], (3, 1)), np.tile(b[:1], (3, 1)))
    assert copies == probability_of_improvement(a[:1], b[:1])  # tasks that agree add no information
    order = random.permutation(8)
    assert probability_of_improvement(a[:, order], b[:, order]).value == pytest.approx(found.value)


def test_separate_arms_one_seed_and_invalid_scores() -> None:
    above = probability_of_improvement(np.array([[3.0, 4.0]]), np.array([[1.0, 2.0]]))
    assert (above.value, above.low, above.high) == (1, 1, 1)
    one = probability_of_improvement(np.array([[3.0]]), np.array([[3.0]]))
    assert (one.value, one.low, one.high) == (0.5, None, None)
    with pytest.raises(ValueError, match=r"found \(1, 2\) and \(2, 1\)"):
        probability_of_improvement(np.zeros((1, 2)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="finite"):
        probability_of_improvement(np.array([[np.nan]]), np.zeros((1, 1)))

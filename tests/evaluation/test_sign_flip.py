"""The sign-flip test: by hand, against scipy's exact permutations, and its floor."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm, permutation_test

from vision_mtl.evaluation.sign_flip import sign_flip, sign_flip_floor


def test_by_hand() -> None:
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8  # +++ and ---
    assert sign_flip(np.array([-1.0, 2.0, 3.0])) == 4 / 8  # 4: +++, -++ and their negatives
    assert sign_flip(np.array([2.0])) == 1
    assert sign_flip(np.zeros(5)) == 1
    assert sign_flip(np.array([1.0, -1.0])) == 1


@pytest.mark.parametrize("size", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.6, -2.0])
def test_equal_to_scipy(size: int, shift: float) -> None:
    for decimals in (1, 6):  # one decimal: ties
        x = np.round(np.random.default_rng(size).normal(shift, 1, size=size), decimals)
        exact = permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip(x) == pytest.approx(exact.pvalue, abs=1e-12)


def test_ties_are_counted_whatever_the_rounding() -> None:
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.7, -0.1])  # sums of tenths differ in their last bits
    whole = np.round(10 * x).astype(int)
    sums = [abs(np.dot(signs, whole)) for signs in itertools.product((-1, 1), repeat=6)]
    assert sign_flip(x) == np.mean(np.array(sums) >= abs(whole.sum()))


@pytest.mark.parametrize("size", [5, 10, 20, 33])
def test_the_floor_is_reached_when_all_seeds_agree(size: int) -> None:
    assert sign_flip(np.arange(1.0, size + 1)) == sign_flip_floor(size) == 2 / 2**size


def test_drawn_signs_agree_with_the_normal_limit() -> None:
    x = np.random.default_rng(0).normal(0.15, 1, size=60)
    expected = 2 * norm.sf(abs(x.sum()) / np.sqrt((x**2).sum()))
    assert sign_flip(x) == pytest.approx(expected, rel=0.1)
    assert sign_flip(np.ones(60)) == 1 / 100_001


def test_scale_sign_and_order_do_not_matter() -> None:
    x = np.random.default_rng(1).normal(0.5, 1, size=9)
    assert sign_flip(x) == sign_flip(-x) == sign_flip(x[::-1]) == sign_flip(1e-9 * x) == sign_flip(1e9 * x)


def test_invalid_values_are_refused() -> None:
    for wrong in (np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="need finite differences"):
            sign_flip(wrong)

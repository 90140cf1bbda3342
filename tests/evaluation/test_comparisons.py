"""A comparison: differences by hand, undecided cases and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_rel

from vision_mtl.evaluation.comparisons import compare
from vision_mtl.evaluation.crossed import spread
from vision_mtl.evaluation.power import largest_difference, minimum_detectable

SCORES = arrays(np.float64, (2, 4, 6), elements=st.integers(0, 5).map(float))


def test_by_hand() -> None:
    a = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    b = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    found = compare(a, b, np.arange(4))
    assert (found.arm_score.value, found.baseline_score.value, found.difference.value) == (0.75, 0.375, 0.375)
    assert (found.num_seeds, found.difference.n, found.difference.num_clusters) == (2, 4, 4)
    assert found.std == pytest.approx(np.std([0.25, 0.5], ddof=1))
    assert found.p_value == 0.5  # the floor for two seeds that agree
    assert (found.difference.low, found.difference.high) == spread(a - b, np.arange(4)).interval()


def test_it_is_the_paired_t_test_where_images_do_not_differ() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6, 1)) * np.ones((2, 6, 5))
    found, expected = compare(a, b, np.arange(5)), ttest_rel(a[:, 0], b[:, 0])
    assert found.interval_p_value == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.minimum_detectable == pytest.approx(minimum_detectable(found.std, 6))


def test_common_difficulty_cancels() -> None:
    random = np.random.default_rng(1)
    hard = random.normal(size=(1, 200)) + random.normal(size=(5, 1))
    a, b = hard + 0.1 + 0.1 * random.normal(size=(5, 200)), hard + 0.1 * random.normal(size=(5, 200))
    found = compare(a, b, np.arange(200))
    widths = [score.high - score.low for score in (found.difference, found.arm_score, found.baseline_score)]
    assert widths[0] < min(widths[1:]) / 10
    assert found.verdict == "helps" and "leaves out 0" in found.reason
    assert compare(b, a, np.arange(200)).verdict == "hurts"


def test_one_seed_or_one_cluster_is_undecided_with_a_reason() -> None:
    one_seed = compare(np.ones((1, 9)), np.zeros((1, 9)), np.arange(9))
    assert (one_seed.difference.value, one_seed.difference.low, one_seed.difference.high) == (1, None, None)
    assert (one_seed.verdict, one_seed.p_value, one_seed.minimum_detectable) == ("undecided", 1, None)
    assert one_seed.std is None and "one seed" in one_seed.reason
    one_cluster = compare(np.ones((5, 9)), np.zeros((5, 9)), np.zeros(9))
    assert (one_cluster.verdict, one_cluster.image_error) == ("undecided", None)
    assert "one cluster" in one_cluster.reason


def test_constant_differences() -> None:
    ones = np.ones((5, 8))
    same = compare(ones, ones, np.arange(8))
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert (same.verdict, same.p_value, same.minimum_detectable) == ("undecided", 1, None)
    assert "all seeds and images agree" in same.reason
    better = compare(ones, 0 * ones, np.arange(8))
    assert (better.verdict, better.p_value, better.interval_p_value) == ("helps", 0.0625, 0)


def test_an_undecided_comparison_states_its_minimum_detectable_difference() -> None:
    a, b = np.random.default_rng(2).random((2, 5, 50)) < 0.7
    found = compare(a, b, np.arange(50))
    assert found.verdict == "undecided" and f"{found.minimum_detectable:.3g}" in found.reason


def test_a_detectable_difference_that_is_impossible_is_not_quoted() -> None:
    """From .5 a share can move by .5."""
    a, b = np.array([[1.0, 1, 1, 0], [0, 0, 0, 1]]), np.array([[0.0, 1, 0, 0], [1, 0, 1, 1]])
    found = compare(a, b, np.arange(4))
    assert found.verdict == "undecided" and found.minimum_detectable > 1 and found.baseline_score.value == 0.5
    assert found.reason.endswith("no difference can be shown with this design: it needs more seeds or test images")
    assert largest_difference(0.5, 0.8) == 0.8 and largest_difference(-2.0, -1.0) == np.inf


def test_invalid_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(3, 4\) and \(3, 5\)"):
        compare(np.zeros((3, 4)), np.zeros((3, 5)), np.arange(4))
    with pytest.raises(ValueError, match=r"found \(4,\)"):
        compare(np.zeros(4), np.zeros(4), np.arange(4))
    with pytest.raises(ValueError, match="finite; found 1"):
        compare(np.array([[0.0, np.nan]]), np.zeros((1, 2)), np.arange(2))
    with pytest.raises(ValueError, match="5 clusters"):
        compare(np.zeros((3, 4)), np.zeros((3, 4)), np.arange(5))


@settings(max_examples=40, deadline=None)
@given(SCORES, st.permutations(range(4)), st.permutations(range(6)))
def test_antisymmetry_order_and_shift(scores: np.ndarray, seeds: list[int], images: list[int]) -> None:
    a, b = scores
    clusters = np.array([0, 0, 1, 2, 2, 3])
    found, turned = compare(a, b, clusters), compare(b, a, clusters)
    assert turned.difference.value == -found.difference.value and turned.p_value == found.p_value
    assert (turned.difference.low, turned.difference.high) == pytest.approx(
        (-found.difference.high, -found.difference.low)
    )
    moved = compare(a[seeds][:, images] + 3, b[seeds][:, images] + 3, clusters[images])
    assert (moved.difference.low, moved.difference.high) == pytest.approx(
        (found.difference.low, found.difference.high), abs=1e-9
    )
    assert moved.p_value == found.p_value


def shifted(shift: float, noise: float = 0.002, images: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return values (8, n) of two arms, in [0, 1], whose seeds differ by about `shift`."""
    random = np.random.default_rng(3)
    base = 0.5 + 0.1 * random.random((8, images))
    return base + shift + noise * random.standard_normal((8, 1)), base


def test_a_difference_that_is_shown_to_be_too_small_is_equivalent() -> None:
    a, b = shifted(0.0)
    found = compare(a, b, np.arange(1000), rope=0.01)
    assert found.verdict == "equivalent" and found.within_rope and "lies within ±0.01" in found.reason
    assert compare(b, a, np.arange(1000), rope=0.01).verdict == "equivalent"
    assert compare(a, b, np.arange(1000)).verdict == compare(a, b, np.arange(1000), rope=0).verdict == "undecided"
    assert compare(a, b, np.arange(1000), rope=0.001).verdict == "undecided"
    with pytest.raises(ValueError, match="rope must be 0 or more; found -1"):
        compare(a, b, np.arange(1000), rope=-1)


def test_an_effect_too_small_to_matter_helps_and_is_within_the_rope() -> None:
    found = compare(*shifted(0.005), np.arange(1000), rope=0.01)
    assert found.verdict == "helps" and found.within_rope
    assert found.reason.endswith("leaves out 0, and lies within ±0.01")
    large = compare(*shifted(0.02), np.arange(1000), rope=0.01)
    assert large.verdict == "helps" and not large.within_rope and large.reason.endswith("leaves out 0")


def test_few_test_images_cannot_show_that_shares_are_equivalent() -> None:
    a, b = np.ones((8, 300)), np.ones((8, 300))
    b[0, 0] = 0  # a difference on 1 % of the images is missed by 300 of them with probability .049
    assert compare(a, b, np.arange(300), rope=0.01).verdict == "undecided"
    assert compare(a, b, np.arange(300), rope=0.01).rope_p_value == pytest.approx(2 * 0.99**300)
    assert compare(a, b, np.arange(300), rope=0.02).verdict == "equivalent"
    assert compare(-a, -b, np.arange(300), rope=0.01).verdict == "equivalent"  # an error is no share of an image


def test_arms_that_never_differ_show_no_spread() -> None:
    same = np.ones((8, 1000))
    assert compare(same, same, np.arange(1000), rope=0.5).verdict == "undecided"


def test_the_equivalence_p_value_is_that_of_two_one_sided_tests() -> None:
    a, b = -np.random.default_rng(0).normal(10, 1, size=(2, 6, 1)) * np.ones((2, 6, 5))
    found, rope = compare(a, b, np.arange(5), rope=2.0), 2.0
    tests = [ttest_rel(a[:, 0] + shift, b[:, 0], alternative=way).pvalue
             for shift, way in ((rope, "greater"), (-rope, "less"))]  # fmt: skip
    assert found.rope_p_value == pytest.approx(2 * max(tests))


def test_without_an_interval_nothing_is_equivalent() -> None:
    ones = np.ones((1, 1000))
    assert compare(ones, ones, np.arange(1000), rope=0.5).verdict == "undecided"
    assert compare(np.ones((5, 9)), np.ones((5, 9)), np.zeros(9), rope=0.5).verdict == "undecided"


def test_a_rare_class_of_balanced_accuracy_needs_enough_images_too() -> None:
    """Of three classes, a difference of 1 point is one on 3 % of a class; 40 of its images miss it too often."""
    a, b = shifted(0.0)
    parts = [(1 / 3, 480), (1 / 3, 480), (1 / 3, 40)]
    assert compare(a, b, np.arange(1000), rope=0.01, parts=parts).verdict == "undecided"
    enough = [(1 / 3, 400), (1 / 3, 400), (1 / 3, 200)]
    assert compare(a, b, np.arange(1000), rope=0.01, parts=enough).verdict == "equivalent"

"""Scores by hand, against scipy's exact interval, and the coverage of 95 % intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from vision_mtl.core.sums import SHARE, Measure, divide, ratio
from vision_mtl.evaluation.scores import accuracy_score, mean_score, proportion, ratio_skill, score_measures


def test_skill_is_a_ratio_of_sums() -> None:
    score = ratio_skill(np.array([1.0, 1.0, 0.0]), np.array([2.0, 0.0, 2.0]), np.arange(3))
    assert score.value == 0.5 and score.n == score.num_clusters == 3


def test_worse_than_the_reference_is_negative() -> None:
    assert ratio_skill(np.full(4, 3.0), np.ones(4), np.arange(4)).value == -2


def test_one_cluster_has_no_interval() -> None:
    score = ratio_skill(np.ones(5), np.full(5, 2.0), np.zeros(5))
    assert (score.value, score.low, score.high, score.num_clusters) == (0.5, None, None, 1)


def test_a_perfect_reference() -> None:
    assert ratio_skill(np.zeros(3), np.zeros(3), np.arange(3)).value == 0
    with pytest.raises(ValueError, match="undefined"):
        ratio_skill(np.ones(3), np.zeros(3), np.arange(3))


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        ratio_skill(np.ones(3), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="equal lengths"):
        ratio_skill(np.ones(0), np.ones(0), np.ones(0))


def test_copies_of_clusters_do_not_narrow_the_interval() -> None:
    random = np.random.default_rng(0)
    model, reference = random.uniform(0.5, 1, 20), random.uniform(1, 2, 20)
    once = ratio_skill(model, reference, np.arange(20))
    copied = ratio_skill(np.repeat(model, 50), np.repeat(reference, 50), np.repeat(np.arange(20), 50))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert copied.n == 1000 and copied.num_clusters == 20


def test_the_interval_has_its_coverage() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        effect = random.normal(0, 0.2, 40)  # the common effect of a cluster
        reference = random.uniform(0.5, 1.5, (40, 10))
        model = reference * np.clip(0.8 + effect[:, None] + random.normal(0, 0.1, (40, 10)), 0, None)
        score = ratio_skill(model.ravel(), reference.ravel(), np.repeat(np.arange(40), 10))
        hits += score.low <= 0.2 <= score.high
    assert 0.90 <= hits / 300 <= 0.985


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (87, 100)])
def test_accuracy_has_the_exact_interval_of_scipy(hits: int, n: int) -> None:
    score = proportion(np.arange(n) < hits)
    expected = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert score.value == hits / n
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_any_statistic_of_sums_has_an_interval() -> None:
    parts = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 4.0], [0.0, 8.0], [2.0, 3.0], [1.0, 1.0], [2.0, 4.0]])
    measures = {"inside": Measure(parts, ratio(0, 1)), "outside": Measure(parts, ratio(0, 1), value=9.0)}
    found = score_measures(measures, np.array([7, 7, 3, 3, 5, 6, 2]))
    one = found["inside"]
    assert (one.value, one.n, one.num_clusters) == (14 / 24, 7, 5)
    assert one.low < 14 / 24 < one.high
    assert (found["outside"].value, found["outside"].low, found["outside"].high) == (9.0, one.low, 9.0)
    assert score_measures(measures, np.arange(7) % 4)["inside"].low is None


def test_limits_cut_the_interval_and_a_perfect_share_keeps_a_width() -> None:
    def f1(sums: np.ndarray) -> np.ndarray:
        return divide(sums[..., 0], sums[..., 1])

    parts = np.stack([np.r_[np.full(9, 1.0), 0.5], np.ones(10)], axis=1)
    measures = {"near": Measure(parts, f1, limits=SHARE), "free": Measure(parts, f1)}
    near, free = score_measures(measures, np.arange(10)).values()
    assert free.high > 1 == near.high and near.low == free.low
    perfect = score_measures({"f1": Measure(np.ones((10, 2)), f1, limits=SHARE)}, np.arange(10))["f1"]
    assert perfect.value == perfect.high == 1 and 0.6 < perfect.low < 0.9


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    score = mean_score(values, np.arange(2000))
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=0.03 * half)


def test_equal_clusters_without_skewness_have_the_t_interval_of_scipy() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    score = mean_score(np.repeat(values, 3), np.repeat(np.arange(5), 3))
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))


def test_few_clusters_have_no_interval() -> None:
    values, correct = np.arange(40.0), np.arange(40) % 3 == 0
    assert mean_score(values, np.arange(40) // 10).low is accuracy_score(correct, np.arange(40) // 10).low is None
    assert mean_score(values, np.arange(40) // 8).low is not None
    assert accuracy_score(correct, np.arange(40) // 8).low is not None


def test_accuracy_over_clusters_is_wider_than_over_images() -> None:
    correct = np.repeat(np.random.default_rng(0).random(50) < 0.7, 4)
    clustered, single = (accuracy_score(correct, clusters) for clusters in (np.arange(200) // 4, np.arange(200)))
    assert single == proportion(correct) and clustered.value == single.value
    assert clustered.high - clustered.low > 1.5 * (single.high - single.low)


def test_a_ratio_without_instances_is_undefined() -> None:
    np.testing.assert_array_equal(divide(np.array([1.0, 2.0]), np.array([2.0, 0.0])), [0.5, np.nan])

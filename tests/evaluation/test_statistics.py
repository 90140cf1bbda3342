"""Paired differences by hand, chance by counting, and the score of shuffled labels."""

import numpy as np
import pytest

from vision_mtl.evaluation.linear_probe import fit_linear_probe
from vision_mtl.evaluation.scores import accuracy_score, mean_score
from vision_mtl.evaluation.statistics import paired_difference, permutation_baseline


def test_a_difference_is_of_means_on_the_same_images() -> None:
    a, b = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    score = paired_difference(a, b, np.arange(6))
    assert score.value == 0.5 and score.n == score.num_clusters == 6
    assert score.low <= 0.5 <= score.high
    same = paired_difference(a, a, np.arange(6))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="found 6 and 3"):
        paired_difference(a, b[:3], np.arange(6))


def test_common_difficulty_cancels() -> None:
    random = np.random.default_rng(0)
    hard = random.random(400) < 0.5
    a = np.where(hard, random.random(400) < 0.1, random.random(400) < 0.95)
    b = np.where(hard, random.random(400) < 0.1, random.random(400) < 0.90)
    paired = paired_difference(a, b, np.arange(400))
    alone = [mean_score(values, np.arange(400)) for values in (a, b)]
    assert paired.high - paired.low < sum(score.high - score.low for score in alone)


def test_whole_clusters_are_drawn() -> None:
    values, clusters = np.repeat([1.0, 0.0, 0.5, 0.5, 0.5], 50), np.repeat(np.arange(5), 50)
    score = paired_difference(values, np.zeros(250), clusters)
    alone = paired_difference(np.array([1.0, 0.0, 0.5, 0.5, 0.5]), np.zeros(5), np.arange(5))
    assert (score.value, score.num_clusters) == (0.5, 5)
    assert (score.low, score.high) == pytest.approx((alone.low, alone.high))


def test_chance_is_the_product_of_marginals() -> None:
    pred, true = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 2])
    assert permutation_baseline(pred, true).value == pytest.approx(3 / 4 * 1 / 4 + 1 / 4 * 2 / 4)
    labels = permutation_baseline(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [0, 0]]))
    assert labels.value == pytest.approx(np.mean([1 * 0.5, 0.5 * 1]))
    always = permutation_baseline(np.zeros(9, np.int64), np.zeros(9, np.int64))
    assert (always.value, always.low, always.high) == (1, 1, 1)
    with pytest.raises(ValueError, match="equal shapes"):
        permutation_baseline(pred, true[:3])


def test_the_interval_of_chance_covers_the_shuffles() -> None:
    random = np.random.default_rng(1)
    pred, true = random.integers(5, size=200), random.integers(5, size=200)
    score = permutation_baseline(pred, true)
    shuffled = np.array([(pred == random.permutation(true)).mean() for _ in range(4000)])
    assert shuffled.mean() == pytest.approx(score.value, abs=0.002)
    assert np.quantile(shuffled, [0.025, 0.975]) == pytest.approx([score.low, score.high], abs=0.0101)


@pytest.mark.slow
def test_a_probe_of_shuffled_labels_scores_chance() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(440, 12)), random.integers(4, size=440)
    hits, rounds = 0, 40
    for _ in range(rounds):
        shuffled = random.permutation(y)
        train, val, test = slice(0, 200), slice(200, 240), slice(240, 440)
        probe = fit_linear_probe("single_label", x[train], shuffled[train], x[val], shuffled[val], num_outputs=4)
        pred = probe.predict(x[test]).argmax(1)
        score = accuracy_score(pred == shuffled[test], np.arange(200))
        hits += score.low <= permutation_baseline(pred, shuffled[test]).value <= score.high
    assert hits / rounds >= 0.9

"""The crossed interval: errors by hand and by a slow loop, coverage and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t, ttest_1samp

from vision_mtl.evaluation.crossed import spread
from vision_mtl.evaluation.jackknife import effective_degrees

DRAWS = 2000  # a coverage of .95 is then known to half a point


def drawn(
    random: np.random.Generator, seeds: int, images: int, seed_std: float, image_std: float, rest_std: float
) -> np.ndarray:
    shape = (DRAWS, seeds, images)
    seed, image = random.normal(size=(DRAWS, seeds, 1)), random.normal(size=(DRAWS, 1, images))
    return seed_std * seed + image_std * image + rest_std * random.normal(size=shape)


def covers(values: np.ndarray, clusters: np.ndarray, **options: bool) -> float:
    low, high = spread(values, clusters).interval(**options)
    return float(((low <= 0) & (high >= 0)).mean())


def test_errors_by_hand() -> None:
    only_seeds = spread(np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]), np.arange(3))
    assert (only_seeds.mean, only_seeds.seed_error, only_seeds.image_error) == (2, 1, 0)
    only_images = spread(np.array([[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]]), np.arange(3))
    assert (only_images.mean, only_images.seed_error) == (3, 0)
    assert only_images.image_error == pytest.approx(np.sqrt(4 / 3)) and only_images.image_degrees == pytest.approx(2)
    only_rest = spread(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), np.arange(3))
    assert (only_rest.mean, only_rest.seed_error, only_rest.image_error) == (0, 0, 0)


def test_without_image_effects_it_is_the_t_interval() -> None:
    by_seed = np.array([0.1, 0.3, -0.05, 0.2, 0.12])
    found = spread(np.repeat(by_seed[:, None], 7, axis=1), np.arange(7))
    expected = ttest_1samp(by_seed, 0)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert found.interval(0.8) == pytest.approx(tuple(expected.confidence_interval(0.8)))
    assert found.p_value() == pytest.approx(expected.pvalue)


def test_without_seed_effects_it_is_the_t_interval_of_images() -> None:
    by_image = np.random.default_rng(0).normal(0.3, 1, size=30)
    found = spread(np.tile(by_image, (4, 1)), np.arange(30))
    expected = ttest_1samp(by_image, 0)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_value() == pytest.approx(expected.pvalue)


def test_errors_agree_with_a_slow_loop_over_unequal_clusters() -> None:
    random = np.random.default_rng(1)
    values, clusters = random.normal(size=(4, 12)), np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4])
    means, table = values.mean(1), np.zeros((4, 5))
    for seed in range(4):
        for image in range(12):
            table[seed, clusters[image]] += (values[seed, image] - means[seed]) / 12
    for cluster in range(5):
        table[:, cluster] /= (1 - (clusters == cluster).sum() / 12) / (1 - 1 / 5)
    images = rest = 0.0
    for cluster in range(5):
        mean = table[:, cluster].mean()
        images += 5 / 4 * mean**2
        rest += sum(5 / 4 * (table[seed, cluster] - mean) ** 2 / (4 * 3) for seed in range(4))
    found = spread(values, clusters)
    assert found.seed_error == pytest.approx(means.std(ddof=1) / 2)
    assert found.image_error == pytest.approx(np.sqrt(max(images - rest, 0)))
    assert (found.num_seeds, found.num_clusters) == (4, 5)


def test_errors_equal_the_deviations_of_repetitions() -> None:
    values = drawn(np.random.default_rng(2), 6, 40, seed_std=0.3, image_std=1.0, rest_std=0.5)
    found = spread(values, np.arange(40))
    variance = found.seed_error**2 + found.image_error**2
    assert variance.mean() == pytest.approx(0.3**2 / 6 + 1 / 40 + 0.5**2 / 240, rel=0.03)
    assert variance.mean() == pytest.approx(found.mean.var(), rel=0.08)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("seed_std", "image_std"), [(0.5, 0.0), (0.5, 1.4), (0.05, 1.4)])
def test_it_covers_the_mean(seeds: int, seed_std: float, image_std: float) -> None:
    values = drawn(np.random.default_rng(3), seeds, 40, seed_std, image_std, rest_std=1.0)
    assert 0.935 <= covers(values, np.arange(40)) <= 0.98


def test_it_covers_the_mean_of_clusters_of_any_size() -> None:
    random = np.random.default_rng(4)
    clusters = np.repeat(np.arange(30), random.integers(1, 6, size=30))
    values = drawn(random, 5, 30, seed_std=0.2, image_std=1.0, rest_std=0.5)[..., clusters]
    values = values + random.normal(size=values.shape)
    assert 0.93 <= covers(values, clusters) <= 0.98
    assert covers(values, np.arange(len(clusters))) < 0.93, "clusters must matter here"


def test_the_guard_improves_coverage_of_skewed_seeds_and_never_narrows() -> None:
    random = np.random.default_rng(5)
    values = np.repeat(random.lognormal(size=(DRAWS, 10, 1)) - np.exp(0.5), 3, axis=2)
    plain, guarded = covers(values, np.arange(3)), covers(values, np.arange(3), guard_skew=True)
    assert plain < 0.87 and guarded > 0.9
    found = spread(values, np.arange(3))
    (low, high), (guarded_low, guarded_high) = found.interval(), found.interval(guard_skew=True)
    assert (guarded_low <= low).all() and (guarded_high >= high).all()
    assert (guarded_low == low)[found.skewness > 0.5].all(), "a long tail upward moves the upper end alone"


def test_the_guard_equals_halls_transformation() -> None:
    by_seed = np.array([0.0, 0.1, 0.1, 0.2, 0.9])
    found = spread(np.repeat(by_seed[:, None], 3, axis=1), np.arange(3))
    skewness, high = float(found.skewness), float(found.interval(guard_skew=True)[1])
    u = (by_seed.mean() - high) / by_seed.std(ddof=1)
    statistic = np.sqrt(5) * (u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / 30)
    assert statistic == pytest.approx(t.ppf(0.025, 4))


@pytest.mark.parametrize("guard", [False, True])
def test_at_the_p_value_the_interval_touches_0(guard: bool) -> None:
    random = np.random.default_rng(6)
    for shift in (-1.0, 0.2, 1.0):
        found = spread(random.lognormal(size=(6, 20)) + shift - 1.6, np.arange(20))
        p_value = found.p_value(guard_skew=guard)
        low, high = found.interval(1 - p_value, guard_skew=guard)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-7)


def test_one_seed_or_one_cluster_has_no_interval() -> None:
    for values, clusters in ((np.ones((1, 4)), np.arange(4)), (np.arange(8.0).reshape(2, 4), np.zeros(4))):
        found = spread(values, clusters)
        assert np.isnan(found.interval()).all() and found.p_value() == 1
    assert np.isnan(spread(np.ones((1, 4)), np.arange(4)).seed_error)


def test_constants_have_an_interval_of_no_width() -> None:
    found = spread(np.full((5, 3), 0.25), np.arange(3))
    assert found.interval() == (0.25, 0.25) == found.interval(guard_skew=True)
    assert found.p_value() == 0 and spread(np.zeros((5, 3)), np.arange(3)).p_value() == 1


def test_effective_degrees_against_simulated_variances() -> None:
    random = np.random.default_rng(7)
    weights = np.array([8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0]) / 18
    draws = random.normal(size=(20_000, 7))
    influence = weights * (draws - (draws @ weights)[:, None]) / (1 - weights)
    variance = (influence**2).sum(1)
    assert effective_degrees(weights) == pytest.approx(2 * variance.mean() ** 2 / variance.var(), rel=0.05)
    assert effective_degrees(np.full(9, 1 / 9)) == pytest.approx(8)


@pytest.mark.parametrize("spread_of_sizes", [0.5, 1.0, 1.5])
def test_it_covers_the_mean_of_very_unequal_clusters(spread_of_sizes: float) -> None:
    random = np.random.default_rng(8)
    held = []
    for _ in range(20):
        sizes = np.maximum(1, random.lognormal(1, spread_of_sizes, 20).round().astype(int))
        clusters = np.repeat(np.arange(20), sizes)
        values = random.normal(size=(200, 1, 20))[..., clusters] + 0.3 * random.normal(size=(200, 5, 1))
        low, high = spread(values, clusters).interval()
        held.append(((low <= 0) & (high >= 0)).mean())
    assert np.mean(held) >= 0.93  # conservative where one cluster holds most images


def test_a_share_of_1_in_every_seed_has_an_interval() -> None:
    found = spread(np.ones((5, 25)), np.arange(25), is_share=True)
    low, _ = found.interval()
    assert found.mean == 1 and 0.9 < low < 0.98
    assert spread(np.ones((5, 100)), np.arange(100), is_share=True).interval()[0] > low


def test_invalid_values_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clusters"):
        spread(np.zeros((2, 4)), np.arange(3))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        spread(np.zeros(4), np.arange(4))
    with pytest.raises(ValueError, match="found 2 that are not"):
        spread(np.array([[0, np.nan], [np.inf, 0]]), np.arange(2))
    with pytest.raises(ValueError, match=r"found 1\.0"):
        spread(np.zeros((2, 4)), np.arange(4)).interval(1.0)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 12)), elements=st.integers(-8, 8).map(float)),
    st.integers(0, 1000),
    st.booleans(),
)
def test_order_sign_and_shift(values: np.ndarray, number: int, guard: bool) -> None:
    random = np.random.default_rng(number)
    clusters = random.integers(3, size=values.shape[1])
    clusters[:2] = 0, 1
    low, high = spread(values, clusters).interval(guard_skew=guard)
    seeds, images = (random.permutation(size) for size in values.shape)
    moved = spread(values[seeds][:, images], clusters[images] + 7).interval(guard_skew=guard)
    assert moved == pytest.approx((low, high), abs=1e-9, nan_ok=True)
    assert spread(-values, clusters).interval(guard_skew=guard) == pytest.approx((-high, -low), abs=1e-9, nan_ok=True)
    shifted = spread(values + 2.5, clusters).interval(guard_skew=guard)
    assert shifted == pytest.approx((low + 2.5, high + 2.5), abs=1e-9, nan_ok=True)


def test_a_guarded_interval_that_holds_0_at_any_level_has_p_1() -> None:
    seeds = np.array([-0.01, -0.01, -0.01, -0.01, 0.0399])[
        :, None
    ]  # the mean is a hundredth of its error, the skew large
    found = spread(seeds + np.zeros((5, 20)), np.arange(20))
    assert found.p_value(guard_skew=True) == 1.0 and 0.9 < found.p_value() < 1.0

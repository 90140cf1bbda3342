"""Power: the noncentral t by hand, inverses, and simulated studies."""

import numpy as np
import pytest
from scipy.stats import nct, t

from vision_mtl.evaluation.crossed import spread
from vision_mtl.evaluation.power import minimum_detectable, power_of, required_seeds


def noncentral(effect: float, std: float, num_seeds: int, alpha: float) -> float:
    quantile, shift = t.isf(alpha / 2, num_seeds - 1), effect / std * np.sqrt(num_seeds)
    return float(nct.sf(quantile, num_seeds - 1, shift) + nct.cdf(-quantile, num_seeds - 1, shift))


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
def test_without_an_image_error_it_is_the_power_of_the_t_test(num_seeds: int, alpha: float) -> None:
    for effect in (0.0, 0.3, 0.8):
        assert power_of(effect, 1.3, num_seeds, alpha) == pytest.approx(
            noncentral(effect, 1.3, num_seeds, alpha), abs=1e-4
        )
    assert power_of(-0.4, 1, num_seeds) == pytest.approx(power_of(0.4, 1, num_seeds))


def test_the_sample_size_of_the_textbooks() -> None:
    assert required_seeds(0.5, 1.0) == 34  # G*Power and statsmodels: 33.4 pairs at d = 0.5
    assert required_seeds(1.0, 1.0) == 10
    assert required_seeds(-1.0, 1.0) == 10
    assert required_seeds(0.2, 1.0) == 199


@pytest.mark.parametrize("image_error", [0.0, 0.4])
def test_the_detectable_difference_is_detected(image_error: float) -> None:
    for num_seeds in (2, 5, 10):
        found = minimum_detectable(1.0, num_seeds, image_error=image_error, num_clusters=100)
        assert power_of(found, 1.0, num_seeds, image_error=image_error, num_clusters=100) == pytest.approx(0.8)
        if num_seeds > 2:
            found *= 1 + 1e-9  # a power of .8 despite rounding
            assert required_seeds(found, 1.0, image_error=image_error, num_clusters=100) == num_seeds


def test_power_grows_with_seeds_and_images_limit_it() -> None:
    shown = [minimum_detectable(1.0, seeds, image_error=0.3) for seeds in (3, 5, 10, 100, 100_000)]
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == pytest.approx(0.3 * (1.95996 + 0.84162), rel=1e-3)
    assert required_seeds(0.7, 1.0, image_error=0.3) is None
    assert required_seeds(1.0, 1.0, image_error=0.3) > required_seeds(1.0, 1.0)


def test_simulated_studies_detect_as_often_as_computed() -> None:
    random, seeds, images, draws = np.random.default_rng(0), 6, 50, 4000
    seed_std, image_std = 1.0, 4.0
    image_error = image_std / np.sqrt(images)
    effect = minimum_detectable(seed_std, seeds, image_error=image_error, num_clusters=images)
    noise = seed_std * random.normal(size=(draws, seeds, 1)) + image_std * random.normal(size=(draws, 1, images))
    low, high = spread(effect + noise, np.arange(images)).interval()
    assert ((low > 0) | (high < 0)).mean() == pytest.approx(0.8, abs=0.025)


def test_without_spread_any_difference_is_detected() -> None:
    assert (power_of(0.1, 0, 5), power_of(0, 0, 5)) == (1, 0)
    assert minimum_detectable(0, 5) == 0 and required_seeds(0.1, 0) == 2


def test_invalid_values_are_refused() -> None:
    with pytest.raises(ValueError, match="found 1 and inf"):
        power_of(1, 1, 1)
    with pytest.raises(ValueError, match="found -1"):
        power_of(1, -1, 5)
    with pytest.raises(ValueError, match=r"found 1\.2"):
        minimum_detectable(1, 5, power=1.2)
    with pytest.raises(ValueError, match="found 0 and"):
        required_seeds(0, 1)

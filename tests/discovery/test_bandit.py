"""The bandit on sequences of losses whose right answer is known: numbers by hand, noise, saturation, a late start."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from vision_mtl.discovery.bandit import Bandit, expected_improvement

IMAGES = 40


def start(floor: float, base: list[float], chance: np.ndarray, clusters: np.ndarray | None = None) -> Bandit:
    groups = np.zeros(chance.shape[1], int) if clusters is None else clusters
    return Bandit.start(floor, np.array(base), groups, chance, chance)


def levels(*values: float, count: int = 2) -> np.ndarray:
    return np.repeat(np.array(values)[:, None], count, 1)


def test_two_updates_by_hand() -> None:
    bandit = start(0.2, [0.5, 0.5], levels(1, 1))
    assert bandit.weights.tolist() == [1, 1]
    bandit = bandit.update(levels(0.6, 1.0))
    # falls of .4 and 0: worth 2 and 0 times their mean, above the floor; half of the way from 1 to 1.8 and .2
    assert bandit.weights == pytest.approx([1.4, 0.6])
    bandit = bandit.update(levels(0.5, 0.8))
    # .8 * .4 + .1 = .42 at an exposure of (.8 + 1.4) / 1.8; a fall of .2, not divided by the second arm's 1.4 / 1.8
    first, second = 0.42 / (2.2 / 1.8), 0.2
    mean = (first + second) / 2
    assert bandit.weights[0] == pytest.approx(1.4 / 2 + (0.2 + 0.8 * first / mean) / 2)
    assert bandit.weights[1] == pytest.approx(0.6 / 2 + (0.2 + 0.8 * second / mean) / 2)
    assert bandit.skill == pytest.approx([0.5, 0.2])
    assert bandit.shares == pytest.approx(bandit.weights / 2)


def test_the_error_is_that_of_clusters_by_hand() -> None:
    bandit = start(0.1, [1.0], np.ones((1, 4)), clusters=np.array([7, 7, 3, 5]))
    fall, error = bandit.update(1 - np.array([[0.1, 0.3, 0.2, 0.2]])).progress()
    # totals .4, .2, .2 of three clusters: variance .04 / 3, times 3, over 4 images
    assert fall == pytest.approx([0.2]) and error == pytest.approx([0.2 / 4])


@pytest.mark.parametrize(("mean", "error"), [(0.3, 0.1), (-0.1, 0.2), (0.0, 0.05), (-3.0, 0.1), (0.2, 0.0)])
def test_expected_improvement_is_the_integral(mean: float, error: float) -> None:
    wanted = max(mean, 0)
    if error:
        wanted = quad(lambda x: x * norm.pdf(x, mean, error), 0, max(mean, 0) + 12 * error)[0]
    found = expected_improvement(np.array([mean]), np.array([error]))
    assert found == pytest.approx([wanted], abs=1e-9) and found[0] >= 0


def test_weights_keep_their_mean_and_their_floor() -> None:
    random, base = np.random.default_rng(0), [0.5, 0.3, 0.15, 0.05]
    bandit = start(0.25, base, np.ones((4, IMAGES)), np.arange(IMAGES))
    for _ in range(30):
        bandit = bandit.update(bandit.loss + random.normal(-0.01, 0.02, (4, IMAGES)))
        assert bandit.weights @ np.array(base) == pytest.approx(1)
        assert bandit.weights.min() >= 0.25


def test_the_unit_of_a_loss_does_not_matter() -> None:
    random = np.random.default_rng(0)
    losses = 1 - np.cumsum(random.random((5, 2, IMAGES)) / 20, 0)
    plain = start(0.1, [0.5, 0.5], np.ones((2, IMAGES)), np.arange(IMAGES))
    scaled = start(0.1, [0.5, 0.5], np.array([[1.0], [1000.0]]) * np.ones((2, IMAGES)), np.arange(IMAGES))
    for loss in losses:
        plain, scaled = plain.update(loss), scaled.update(loss * np.array([[1.0], [1000.0]]))
        assert plain.weights == pytest.approx(scaled.weights)


def test_a_floor_of_one_is_the_mixture() -> None:
    bandit = start(1.0, [0.5, 0.5], levels(1, 1)).update(levels(0.5, 1.0))
    assert bandit.weights.tolist() == [1, 1]


def test_nothing_learned_is_the_mixture() -> None:
    assert start(0.1, [0.5, 0.5], levels(1, 1)).update(levels(1.2, 1.0)).weights.tolist() == [1, 1]


def test_making_good_a_harm_is_no_progress() -> None:
    bandit = start(0.1, [0.5, 0.5], levels(1, 1)).update(levels(1.5, 1.0)).update(levels(1.05, 0.98))
    assert bandit.weights == pytest.approx([1 / 2 + 0.1 / 2, 1 / 2 + 1.9 / 2])


def test_an_arm_without_an_image_keeps_its_share() -> None:
    nothing = np.full((1, 2), np.nan)
    chance = np.concatenate([levels(1, 1), nothing])
    bandit = start(0.1, [0.4, 0.4, 0.2], chance).update(np.concatenate([levels(0.5, 1.0), nothing]))
    assert bandit.weights == pytest.approx([1.45, 0.55, 1.0]) and bandit.skill[2] == 0


def test_images_that_do_not_suit_count_for_nothing() -> None:
    whole = start(0.1, [1.0], np.ones((1, 4)), np.arange(4)).update(np.array([[0.9, 0.8, 0.7, 0.6]]))
    chance, loss = (np.concatenate([a, np.full((1, 3), np.nan)], 1) for a in (whole.chance_loss, whole.loss))
    partly = start(0.1, [1.0], chance, np.arange(7)).update(loss)
    assert np.array(partly.progress()) == pytest.approx(np.array(whole.progress()))
    assert partly.skill == pytest.approx(whole.skill)


def simulate(arms: list[Callable[[float, int], float]], updates: int, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """(updates, A) weights where arm k's mean loss is `arms[k]` of (how much it was drawn, the update's number), and
    each image's own loss is off by as much as a repair that wobbles."""
    random, seen = np.random.default_rng(seed), np.zeros(len(arms))
    bandit = start(0.1, [1 / len(arms)] * len(arms), np.ones((len(arms), IMAGES)), np.arange(IMAGES))
    found = []
    for number in range(updates):
        seen += bandit.weights
        mean = np.array([arm(drawn, number) for arm, drawn in zip(arms, seen, strict=True)])
        bandit = bandit.update(mean[:, None] + random.normal(0, noise, (len(arms), IMAGES)))
        found.append(bandit.weights)
    return np.array(found)


def hopeless(drawn: float, number: int) -> float:
    return 1.0


def trivial(drawn: float, number: int) -> float:
    """All there is to learn is learned at once."""
    return 0.02 if drawn > 0.5 else 1.0


def learnable(drawn: float, number: int) -> float:
    return float(np.exp(-drawn / 60))


def late_after(updates: int) -> Callable[[float, int], float]:
    """Nothing before so many updates; then a fall with each draw."""
    before = [0.0]

    def late(drawn: float, number: int) -> float:
        if number < updates:
            before[0] = drawn
        return float(np.exp(-(drawn - before[0]) / 20))

    return late


@pytest.mark.parametrize("seed", range(5))
def test_what_is_learned_is_drawn_and_what_is_not_falls_to_the_floor(seed: int) -> None:
    weights = simulate([hopeless, trivial, learnable], 40, seed=seed)[-10:].mean(0)
    assert weights[2] > 2 and weights[0] < 0.25 and weights[1] < 0.25


def test_a_loss_that_wobbles_above_chance_is_not_progress() -> None:
    def wobbling(drawn: float, number: int) -> float:
        return 1.05 + 0.05 * (-1) ** number

    assert simulate([wobbling, learnable], 60)[-30:, 0].mean() < 0.15


def test_an_arm_that_becomes_learnable_late_is_regained() -> None:
    weights = simulate([late_after(30), learnable], 45)
    assert weights[20:30, 0].max() < 0.3  # forgotten
    assert weights[40:, 0].min() > 1.2


def test_a_state_survives_a_checkpoint() -> None:
    chance = np.concatenate([np.ones((1, 3)), [[1.0, np.nan, 0.1]]])
    bandit = start(0.1, [0.7, 0.3], chance, np.array([4, 9, 4])).update(chance * 0.9)
    again = Bandit.from_state(json.loads(json.dumps(bandit.to_state())))
    assert again.weights.tobytes() == bandit.weights.tobytes()
    assert again.update(chance * 0.7).weights.tobytes() == bandit.update(chance * 0.7).weights.tobytes()

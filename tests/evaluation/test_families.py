"""Families: Holm by hand and by a slow loop, intervals that agree with verdicts, false verdicts, records."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.evaluation.comparisons import Comparison, compare
from vision_mtl.evaluation.families import family, holm, holm_levels, judge


def comparisons(random: np.random.Generator, effects: list[float], seeds: int = 5) -> list[Comparison]:
    """Comparisons with one baseline, as in a study."""
    baseline = random.normal(size=(seeds, 1)) + random.normal(size=(seeds, 30))
    arms = [effect + random.normal(size=(seeds, 1)) + random.normal(size=(seeds, 30)) for effect in effects]
    return [compare(arm, baseline, np.arange(30), arm=f"arm {i}", task="pets") for i, arm in enumerate(arms)]


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1, 1])
    assert holm(np.array([0.02])) == 0.02 and holm(np.array([])).shape == (0,)
    rows = np.random.default_rng(0).random((5, 4))
    assert (holm(rows) == np.stack([holm(row) for row in rows])).all()
    with pytest.raises(ValueError, match="must lie in"):
        holm(np.array([0.2, 1.2]))
    with pytest.raises(ValueError, match="found 0"):
        holm_levels(np.array([0.2]), alpha=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    m, rejected = len(p_values), set()
    for step, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        if p_values[index] * (m - step) > 0.05:
            break
        rejected.add(index)
    assert set(np.flatnonzero(holm(np.array(p_values)) <= 0.05)) == rejected
    excluded = np.array(p_values) <= (1 - holm_levels(np.array(p_values))) * (1 + 1e-12)
    assert set(np.flatnonzero(excluded)) == rejected


def test_levels_by_hand() -> None:
    levels = holm_levels(np.array([0.04, 0.001, 0.03]))  # .001 < .05/3; .03 > .05/2 stops; .04 is judged there too
    assert levels == pytest.approx([1 - 0.05 / 2, 1 - 0.05 / 3, 1 - 0.05 / 2])
    assert holm_levels(np.array([0.001, 0.01])) == pytest.approx([1 - 0.05 / 2, 0.95])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.sampled_from([0.0, 1.0, 2.5, -4.0]), min_size=1, max_size=6))
def test_verdicts_equal_holm_on_the_intervals(number: int, effects: list[float]) -> None:
    alone = comparisons(np.random.default_rng(number), effects)
    called = holm(np.array([one.interval_p_value for one in alone])) <= 0.05
    for one, is_called in zip(judge(alone), called, strict=True):
        low, high = one.deciding.low, one.deciding.high
        assert (one.verdict != "undecided") == is_called == (low > 0 or high < 0)
        assert low <= one.difference.low and high >= one.difference.high
        if is_called:
            assert one.verdict == ("helps" if one.difference.value > 0 else "hurts")


@pytest.mark.slow
def test_equal_arms_rarely_get_a_verdict() -> None:
    random, rounds = np.random.default_rng(1), 300
    called = [any(one.verdict != "undecided" for one in judge(comparisons(random, [0.0] * 4))) for _ in range(rounds)]
    assert np.mean(called) <= 0.06


def test_clear_effects_get_a_verdict() -> None:
    verdicts = [row["verdict"] for row in family(comparisons(np.random.default_rng(2), [9.0, 0.0, -9.0], seeds=8))]
    assert verdicts == ["helps", "undecided", "hurts"]


def test_a_record_has_the_keys_of_a_study() -> None:
    random = np.random.default_rng(3)
    a, b = random.random((5, 40)) < 0.9, random.random((5, 40)) < 0.5
    rows = family(
        [
            compare(a, b, np.arange(40), task="pets", fraction=0.1, arm="pretrained", baseline="labels"),
            compare(a[:1], b[:1], np.arange(40), task="cars", fraction=0.1, arm="pretrained", baseline="labels"),
        ]
    )
    first, second = json.loads(json.dumps(rows))
    assert (first["task"], first["fraction"], first["arm"], first["baseline"]) == ("pets", 0.1, "pretrained", "labels")
    assert set(first["difference"]) == {"value", "low", "high", "n", "num_clusters"}
    assert (first["verdict"], first["p_value"], first["p_value_holm"]) == ("helps", 0.0625, 0.125)
    assert first["difference_holm"]["level"] == pytest.approx(0.975) and first["p_value_floor"] == 0.0625
    assert first["arm_score"]["value"] == pytest.approx(a.mean()) and first["baseline_score"]["n"] == 40
    assert (first["num_seeds"], first["n"], second["num_seeds"]) == (5, 40, 1)
    assert second["verdict"] == "undecided" and "one seed" in second["reason"]
    assert second["minimum_detectable"] is None and second["difference"]["low"] is None
    assert family([]) == []


def test_a_larger_family_has_a_larger_minimum_detectable_difference() -> None:
    alone = comparisons(np.random.default_rng(4), [0.0])
    among = family(alone + comparisons(np.random.default_rng(5), [0.0, 0.0]))
    assert among[0]["minimum_detectable"] > alone[0].minimum_detectable


def with_rope(arms: list[tuple[float, float]], rope: float | None = 0.01) -> list[Comparison]:
    """Comparisons of values in [0, 1] on 2,000 images: mean and standard deviation over 8 seeds of each difference."""
    base = np.full((8, 2000), 0.5)
    scale = np.array([-1.5, -1, -0.5, 0, 0, 0.5, 1, 1.5])[:, None]
    scale = scale / scale.std(ddof=1)
    return [compare(base + mean + std * scale, base, np.arange(2000), rope=rope) for mean, std in arms]


def test_all_four_verdicts_of_a_family() -> None:
    rows = family(with_rope([(0.05, 0.003), (-0.05, 0.003), (0.0, 0.003), (0.008, 0.03), (0.005, 0.001)]))
    assert [row["verdict"] for row in rows] == ["helps", "hurts", "equivalent", "undecided", "helps"]
    assert [row["within_rope"] for row in rows] == [False, False, True, False, True]
    assert {row["rope"] for row in rows} == {0.01}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.004, 0.01, -0.03]), st.floats(0.001, 0.01)), min_size=1, max_size=6))
def test_the_deciding_interval_agrees_with_the_verdict(arms: list[tuple[float, float]]) -> None:
    alone = with_rope(arms)
    called = holm(np.array([one.rope_p_value for one in alone])) <= 0.05
    for one, without, is_called in zip(judge(alone), judge(with_rope(arms, None)), called, strict=True):
        low, high = one.deciding.low, one.deciding.high
        assert (without.verdict == one.verdict) or (one.verdict, without.verdict) == ("equivalent", "undecided")
        if one.verdict == "equivalent":
            assert is_called and -0.01 <= low <= 0 <= high <= 0.01
        elif one.verdict == "undecided":
            assert low <= 0 <= high and max(-low, high) > 0.01


def test_the_least_evidence_of_a_difference_is_no_evidence_of_equivalence() -> None:
    """Holm's ranking for differences leaves the luckiest arm for last, and would judge it alone at 95 %."""
    (alone,) = judge(with_rope([(0.004, 0.0062)]))
    *others, last = judge(with_rope([(0.05, 0.003)] * 11 + [(0.004, 0.0062)]))
    assert {one.verdict for one in others} == {"helps"} and alone.verdict == "equivalent"
    assert last.verdict == "undecided" and last.level == pytest.approx(1 - 0.05 / 12)


def test_too_small_to_matter_is_corrected_for_what_helps_too() -> None:
    (alone,) = judge(with_rope([(0.008, 0.0019)]))
    assert alone.verdict == "helps" and alone.within_rope
    *_, last = judge(with_rope([(0.05, 0.003)] * 11 + [(0.008, 0.0019)]))
    assert last.verdict == "helps" and not last.within_rope

"""Each verdict is a sentence that contains its numbers and claims no more than they show."""

import numpy as np
import pytest
from report_records import study

from vision_mtl.evaluation.comparisons import compare
from vision_mtl.evaluation.families import family
from vision_mtl.study.number_format import POINTS, unit_of
from vision_mtl.study.verdict_text import (
    design_size,
    headline,
    how_to_read,
    summaries,
    verdict_reason,
    verdict_sentence,
)


def one(verdict: str, value: float, low: float | None, high: float | None, **other: object) -> dict:
    score = {"value": value, "low": low, "high": high, "n": 90, "num_clusters": 90}
    plain = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90, "num_clusters": 90}
    return {
        **{"task": "pets", "fraction": 0.1, "arm": "pretrained", "baseline": "labels", "verdict": verdict},
        **{"difference": score, "difference_holm": {**score, "level": 0.95}, "arm_score": plain},
        **{"baseline_score": plain, "minimum_detectable": 0.024, "num_seeds": 8, "std": 0.01, "image_error": 0.01},
        **{"reason": "the record's own", **other},
    }


HELPS = one("helps", 0.031, 0.012, 0.05)
SAME = one("equivalent", 0.001, -0.004, 0.006, rope=0.01, within_rope=True)
SMALL = one("helps", 0.005, 0.002, 0.008, rope=0.01, within_rope=True)
HURTS = one("hurts", -0.031, -0.05, -0.012)
OPEN = one("undecided", 0.004, -0.013, 0.021)


@pytest.mark.parametrize(
    ("comparison", "told"),
    [
        (HELPS, "pretrained is +3.1 points [1.2, 5.0] above labels: helps"),
        (HURTS, "pretrained is −3.1 points [−5.0, −1.2] below labels: hurts"),  # noqa: RUF001
        (
            OPEN,
            "pretrained against labels: undecided, +0.4 points [−1.3, 2.1]; "  # noqa: RUF001
            "smallest detectable difference 2.4 points",
        ),
    ],
)
def test_a_verdict_contains_its_numbers(comparison: dict, told: str) -> None:
    sentence = verdict_sentence(comparison, POINTS, 1)
    assert (sentence.text, sentence.fraction, sentence.verdict) == (told, "10 % labels", comparison["verdict"])


def test_an_impossible_detectable_difference_is_not_quoted() -> None:
    told = verdict_sentence({**OPEN, "minimum_detectable": 0.6}, POINTS, 1).text  # from 50 % at most 50 points
    assert told.endswith("; no difference can be shown with this design: it needs more seeds or test images")
    minus_error = {**OPEN["arm_score"], "value": -3.0}
    age = {**OPEN, "minimum_detectable": 1.5, "arm_score": minus_error, "baseline_score": minus_error}
    assert "smallest detectable difference 1.5" in verdict_sentence(age, unit_of(False, [OPEN["difference"]]), 1).text


def test_equivalent_and_too_small_to_matter_state_the_rope() -> None:
    told = verdict_sentence(SAME, POINTS, 4)
    assert told.text == "pretrained against labels: equivalent, +0.1 points [−0.4, 0.6], within ±1.0 points"  # noqa: RUF001
    wider = {**SAME, "difference_holm": {**SAME["difference"], "low": -0.008, "high": 0.009, "level": 0.99}}
    assert "+0.1 points [−0.4, 0.6], corrected [−0.8, 0.9], within" in verdict_sentence(wider, POINTS, 4).text  # noqa: RUF001
    assert verdict_reason(SAME, POINTS) == "the 95 % interval [−0.4, 0.6] lies within ±1.0 points"  # noqa: RUF001
    small = verdict_sentence(SMALL, POINTS, 4)
    assert small.verdict == "helps"
    assert small.text.endswith("helps, but by less than 1.0 points, which does not matter here")
    assert verdict_reason(SMALL, POINTS).endswith("excludes 0 and lies within ±1.0 points")


def test_a_verdict_that_only_the_correction_undid_says_so() -> None:
    deciding = {**OPEN["difference"], "low": -0.01, "high": 0.06, "level": 0.99}
    comparison = one("undecided", 0.02, 0.004, 0.036, difference_holm=deciding)
    told = verdict_sentence(comparison, POINTS, 12).text
    expected = "+2.0 points [0.4, 3.6], but the interval corrected for 12 comparisons, [−1.0, 6.0], contains 0"  # noqa: RUF001
    assert expected in told and "corrected" not in verdict_sentence(OPEN, POINTS, 12).text
    assert verdict_reason(comparison, POINTS) == "the 99 % interval [−1.0, 6.0] contains 0"  # noqa: RUF001


def test_equal_arms_are_identical_and_one_seed_decides_nothing() -> None:
    values = np.random.default_rng(0).random((5, 20))
    same, single = (
        family([compare(v, v.copy(), np.arange(20), arm="a", baseline="b")])[0] for v in (values, values[:1])
    )
    assert verdict_sentence(same, POINTS, 1).text == "a against b: undecided, identical in all 5 seeds"
    assert verdict_reason(same, POINTS) == "identical in all 5 seeds"
    assert (
        "one seed" in verdict_sentence(single, POINTS, 1).text
        and "detectable" not in verdict_sentence(single, POINTS, 1).text
    )
    (clustered,) = family([compare(values, values[::-1], np.zeros(20), arm="a", baseline="b")])
    assert "one cluster of test images" in verdict_sentence(clustered, POINTS, 1).text
    assert verdict_reason(clustered, POINTS) == clustered["reason"]


def test_a_difference_between_arms_at_chance_says_so() -> None:
    for chance, said in ((0.41, True), (0.39, False)):
        told = verdict_sentence(HELPS, POINTS, 1, {"value": chance, "low": 0.3, "high": 0.5}).text
        assert ("neither is shown to be above chance (41.0)" in told) is said


def test_a_regression_is_shown_in_units_of_the_label() -> None:
    comparison = one("helps", 0.42, 0.1, 0.74)
    told = verdict_sentence(comparison, unit_of(False, [comparison["difference"]]), 1).text
    assert told == "pretrained is +0.42 units of the label [0.10, 0.74] above labels: helps"


def test_the_headline_counts() -> None:
    assert headline([HELPS, HURTS, OPEN, OPEN]) == "Of 4 comparisons, 1 helps, 1 hurts and 2 are undecided."
    assert headline([HELPS, HELPS, OPEN]) == "Of 3 comparisons, 2 help, 0 hurt and 1 is undecided."
    assert headline([HELPS, SAME, OPEN]) == ("Of 3 comparisons, 1 helps, 0 hurt, 1 is equivalent and 1 is undecided.")
    assert headline([SAME]) == "The one comparison is equivalent."
    assert headline([OPEN]) == "The one comparison is undecided." and headline([HELPS]).endswith("it helps.")
    assert headline([]) == "There is nothing to compare."


def test_a_summary_names_where_an_arm_helps() -> None:
    rows = [HELPS, {**HELPS, "fraction": 1.0}, {**HURTS, "task": "cars"}, {**OPEN, "arm": "joint"}]
    assert summaries(rows) == [
        "pretrained against labels: helps on pets (10 %, all labels); hurts on cars (10 % labels); none undecided.",
        "joint against labels: helps on no task; hurts on no task; undecided in 1 of 1.",
    ]


def test_a_summary_names_where_arms_are_equivalent() -> None:
    assert summaries([SAME, {**OPEN, "task": "cars"}]) == [
        "pretrained against labels: helps on no task; hurts on no task; equivalent on pets (10 % labels); "
        "undecided in 1 of 2."
    ]


def test_how_to_read_names_the_family_and_the_floor() -> None:
    record = study({"a": 0.0, "b": 0.1})
    told = " ".join(how_to_read(record))
    assert "family of 2 comparisons" in told and "6 seeds cannot give one below 0.0312" in told
    assert "percentage points" in told and "regression" not in told
    alone = " ".join(how_to_read(study({"a": 0.0}, num_seeds=1)))
    assert "One seed shows no variation" in alone and "Holm" not in alone
    assert design_size(record) == "2 arms × 1 task × 2 shares of labels × 6 seeds"  # noqa: RUF001

"""benchmarks/peers.py: the table of settings, the budget, the choice and the guard of the test images."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # for `benchmarks`, which is no installed package

from benchmarks import peer_contest, peer_scores
from benchmarks.peer_grid import ARMS, CRITERIA, EMPSSL, LIGHTLY, OURS, OURS_TRIED, SIMCLR, VICREG, choose, our_options
from benchmarks.peer_runs import settings
from vision_mtl.recipes.build import build_pretexts

LOOK = {
    "split_hash": "abc",
    "chosen": {OURS: "a", LIGHTLY: "b"},
    "budgets": [{"seconds": 60, "cores": 2, "seeds": 5}],
    "commit": "c",
    "date": "d",
    "looks": [],
}


def test_ours_and_each_method_of_lightly_have_as_many_settings() -> None:
    tried = {
        library: [a.setting for a in ARMS.values() if a.library == library and a.setting] for library in (OURS, LIGHTLY)
    }
    assert tried[OURS] == list(OURS_TRIED) and tried[LIGHTLY] == [*SIMCLR, *VICREG, *EMPSSL]
    for own, methods in ((SIMCLR, {"simclr"}), (VICREG, {"vicreg"}), (EMPSSL, {"empssl"}), (OURS_TRIED, CRITERIA)):
        assert len(set(own)) == len(own) == 8 and {setting.method for setting in own} <= set(methods)


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.library == OURS and arm.setting])
def test_our_config_has_every_value_of_the_setting(arm) -> None:
    config = settings(our_options(arm))
    (contrast,) = build_pretexts(config).values()
    values = (
        contrast.criterion,
        contrast.views,
        contrast.view_size,
        config.optim.learning_rate,
        contrast.smallest_crop,
        contrast.temperature,
        config.optim.batch_size,
        contrast.width,
    )
    setting = arm.setting
    assert values == (
        CRITERIA[setting.method],
        setting.views,
        setting.view_size,
        setting.learning_rate,
        setting.smallest_crop,
        setting.temperature,
        setting.batch_size,
        setting.width,
    )


def test_the_budget_is_of_two_cores_and_gives_a_slower_method_fewer_steps() -> None:
    slow, fast = (ARMS[f"{LIGHTLY}-{setting.name}"] for setting in (SIMCLR[0], SIMCLR[1]))
    arm = ARMS[f"{OURS}-{OURS_TRIED[0].name}"]
    rates = {arm.cost: 0.5, slow.cost: 0.75}
    assert slow.cost == fast.cost  # they differ in the temperature only
    assert [peer_contest.planned_steps(one, 60, rates) for one in (arm, slow, fast)] == [240, 160, 160]
    assert peer_contest.planned_steps(ARMS["untrained"], 60, rates) == 0


def test_references_are_never_chosen() -> None:
    means = {name: 0.1 if arm.setting else 0.9 for name, arm in ARMS.items()}
    best = [f"{OURS}-{OURS_TRIED[3].name}", f"{LIGHTLY}-{EMPSSL[3].name}"]
    assert set(choose(means | {name: 0.5 for name in best}).values()) == set(best)


def test_a_missing_setting_ends_the_choice() -> None:
    means = {name: 0.1 for name in ARMS}
    del means[f"{LIGHTLY}-{SIMCLR[0].name}"]
    with pytest.raises(ValueError, match=f"without a score: {LIGHTLY}-{SIMCLR[0].name}"):
        choose(means)


def test_test_images_are_judged_twice_only_on_request() -> None:
    with pytest.raises(SystemExit, match="--again"):
        peer_contest.earlier_looks(LOOK, "abc", again=False)
    (look,) = peer_contest.earlier_looks(LOOK, "abc", again=True)
    assert look["chosen"] == LOOK["chosen"]
    both = peer_contest.earlier_looks({**LOOK, "looks": [look]}, "abc", again=True)
    assert len(both) == 2


def test_other_splits_are_a_first_look() -> None:
    assert peer_contest.earlier_looks(LOOK, "other", again=False) == []


@pytest.fixture(scope="module")
def hits() -> dict:
    """Two budgets: `a` answers 90 % of 40 images right and `b` 30 %; two images of each task are one cluster."""
    rng = np.random.default_rng(0)
    found = {}
    for seconds, how, task in itertools.product((60.0, 600.0), peer_contest.HOWS, peer_scores.TASKS):
        own = found.setdefault(seconds, {})
        own[how, task, "a"] = (rng.random((4, 40)) < 0.9).astype(float)
        own[how, task, "b"] = (rng.random((4, 40)) < 0.3).astype(float)
    return found


CLUSTERS = {task: np.arange(40) // 2 for task in peer_scores.TASKS}


def test_comparisons_are_ours_minus_lightly(hits: dict) -> None:
    rows = peer_contest.comparisons(hits, CLUSTERS, {OURS: "a", LIGHTLY: "b"})
    assert [row["verdict"] for row in rows] == ["helps"] * 16
    first = hits[60.0]["probe", "digits", "a"].mean() - hits[60.0]["probe", "digits", "b"].mean()
    assert rows[0]["difference"]["value"] == pytest.approx(first)
    assert [row["fraction"] for row in rows] == [1.0] * 4 + [0.1] * 4 + [1.0] * 4 + [0.1] * 4
    assert [row["budget"] for row in rows] == ["60 s"] * 8 + ["600 s"] * 8


def test_the_mean_difference_weighs_tasks_alike(hits: dict) -> None:
    fewer = {s: {key: v[:, :20] if key[1] == "pets" else v for key, v in own.items()} for s, own in hits.items()}
    clusters = CLUSTERS | {"pets": CLUSTERS["pets"][:20]}
    rows = peer_contest.mean_differences(fewer, clusters, {OURS: "a", LIGHTLY: "b"})
    assert [(row["budget"], row["how"]) for row in rows] == list(
        itertools.product(("60 s", "600 s"), peer_contest.HOWS)
    )
    own = fewer[600.0]
    expected = [own["finetune", t, "a"].mean() - own["finetune", t, "b"].mean() for t in peer_scores.TASKS]
    found = rows[-1]["difference"]
    assert found["value"] == pytest.approx(np.mean(expected)) and found["low"] < found["value"] < found["high"]
    assert found["num_clusters"] == 3 * 20 + 10


def test_the_search_table_has_every_row_and_marks_the_choice() -> None:
    scores = dict(zip(peer_scores.TASKS, (0.1, 0.2, 0.3, 0.4), strict=True))
    rows = [
        {"arm": "a", "scores": scores, "images_seen": 1280, "data_share": 0.25},
        {"arm": "b", "scores": scores, "images_seen": 0},
    ]
    table = peer_contest.search_table(rows, {"floor": scores}, {OURS: "a"}).splitlines()
    assert table[2:] == [
        "| **a** | 0.100 | 0.200 | 0.300 | 0.400 | 0.250 | 1,280 | 0.25 |",
        "| b | 0.100 | 0.200 | 0.300 | 0.400 | 0.250 | 0 |  |",
        "| floor | 0.100 | 0.200 | 0.300 | 0.400 | 0.250 |  |  |",
    ]

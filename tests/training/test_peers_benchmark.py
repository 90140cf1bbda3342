"""benchmarks/peers.py: the table of settings, the budget, the choice and the guard of the test images."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # for `benchmarks`, which is no installed package

from benchmarks import peer_contest, peer_scores
from benchmarks.peer_grid import ARMS, GRID, LIGHTLY, OURS, choose, our_options
from benchmarks.peer_runs import settings
from vision_mtl.recipes.build import build_pretexts

LOOK = {
    "split_hash": "abc",
    "chosen": {OURS: "a", LIGHTLY: "b"},
    "seconds": 90,
    "commit": "c",
    "date": "d",
    "looks": [],
}


def test_both_libraries_are_tried_with_the_same_settings() -> None:
    tried = {
        library: [a.setting for a in ARMS.values() if a.library == library and a.setting] for library in (OURS, LIGHTLY)
    }
    assert tried[OURS] == tried[LIGHTLY] == list(GRID)
    assert len(set(GRID)) == len(GRID)


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.library == OURS and arm.setting])
def test_our_config_has_every_value_of_the_setting(arm) -> None:
    config = settings(our_options(arm))
    (contrast,) = build_pretexts(config).values()
    values = (
        contrast.views,
        contrast.view_size,
        config.optim.learning_rate,
        contrast.smallest_crop,
        contrast.temperature,
    )
    setting = arm.setting
    assert values == (
        setting.views,
        setting.view_size,
        setting.learning_rate,
        setting.smallest_crop,
        setting.temperature,
    )


def test_the_budget_gives_a_slower_method_fewer_steps() -> None:
    arm, again, peer = (ARMS[f"{lib}-{GRID[n].name}"] for lib, n in ((OURS, 0), (OURS, 1), (LIGHTLY, 0)))
    rates = {arm.cost: 0.5, peer.cost: 0.75}
    assert [peer_contest.planned_steps(one, 90, rates) for one in (arm, again, peer)] == [180, 180, 120]
    assert peer_contest.planned_steps(ARMS["untrained"], 90, rates) == 0


def test_references_are_never_chosen() -> None:
    means = {name: 0.1 for name in ARMS} | {"ours-mixture": 0.9, "lightly-defaults": 0.9, "untrained": 0.9}
    best = [arm.name for arm in ARMS.values() if arm.setting == GRID[3]]
    assert set(choose(means | {name: 0.5 for name in best}).values()) == set(best)


def test_a_missing_setting_ends_the_choice() -> None:
    means = {name: 0.1 for name in ARMS}
    del means[f"{LIGHTLY}-{GRID[0].name}"]
    with pytest.raises(ValueError, match=f"without a score: {LIGHTLY}-{GRID[0].name}"):
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


def test_comparisons_are_ours_minus_lightly() -> None:
    rng = np.random.default_rng(0)
    clusters = {task: np.arange(40) for task in peer_scores.TASKS}
    hits = {}
    for how, task in itertools.product(peer_contest.HOWS, peer_scores.TASKS):
        hits[how, task, "a"] = (rng.random((4, 40)) < 0.9).astype(float)
        hits[how, task, "b"] = (rng.random((4, 40)) < 0.3).astype(float)
    rows = peer_contest.comparisons(hits, clusters, {OURS: "a", LIGHTLY: "b"})
    assert [row["verdict"] for row in rows] == ["helps"] * 8
    expected = hits["probe", "digits", "a"].mean() - hits["probe", "digits", "b"].mean()
    assert rows[0]["difference"]["value"] == pytest.approx(expected)
    assert [row["fraction"] for row in rows] == [1.0] * 4 + [0.1] * 4


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

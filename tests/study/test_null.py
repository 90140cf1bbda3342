"""A/A: two arms that are the same recipe at other seeds differ by chance alone, and are to be called undecided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.datasets import load_digits

from vision_mtl.evaluation.comparisons import compare
from vision_mtl.evaluation.families import judge
from vision_mtl.evaluation.instance_scores import InstanceScores
from vision_mtl.study.collect import Collection, compare_arms

SEEDS, STUDIES, TEST, LABELLED = 5, 1000, 300, 60
IMAGES, LABELS = load_digits(return_X_y=True)
HELD_OUT = np.random.default_rng(0).permutation(len(LABELS))[:TEST]
REST = np.setdiff1d(np.arange(len(LABELS)), HELD_OUT)


def right(seed: int) -> np.ndarray:
    """(300,) whether the nearest class mean of 60 digits, which the seed draws, is right."""
    taught = np.random.default_rng(seed).choice(REST, LABELLED, replace=False)
    means = np.stack([IMAGES[taught][LABELS[taught] == k].mean(0) for k in np.unique(LABELS[taught])])
    distance = (means**2).sum(1) - 2 * IMAGES[HELD_OUT] @ means.T  # (300, K)
    return (np.unique(LABELS[taught])[distance.argmin(1)] == LABELS[HELD_OUT]).astype(float)


@pytest.mark.slow
def test_the_same_recipe_at_other_seeds_is_undecided(written, tmp_path: Path) -> None:
    """1,000 studies of an arm and its control: no more are called than a rate of 5 % explains."""
    arms = {"arm": ["finetune"], "control": {"stages": ["finetune"], "seed_offset": 100_000}}
    values = {seed: right(seed) for base in (0, 100_000) for seed in range(base, base + STUDIES * SEEDS)}
    called = 0
    for number in range(STUDIES):
        seeds = range(number * SEEDS, (number + 1) * SEEDS)
        arm, control = (np.stack([values[base + seed] for seed in seeds]) for base in (0, 100_000))
        (one,) = judge([compare(control, arm, np.arange(TEST))])
        called += one.verdict != "undecided"
    assert 0.01 * STUDIES < called <= binom.ppf(0.99, STUDIES, 0.05)  # what never calls anything would be no test

    # and the study's own way, by files, gives the same
    runs, names = written(arms, [1.0], list(seeds)), [f"{i:03d}" for i in range(TEST)]
    for (arm, fraction, seed), (key,) in runs.finals.items():
        judged = InstanceScores("pets", "head", 1.0, np.arange(TEST), values[runs.plan.nodes[key].seed])
        runs.write(arm, fraction, seed, names, [judged])
    collection = Collection(runs.plan, runs.finals, tmp_path, list(seeds), "accuracy")
    (same,) = judge(compare_arms(collection, [("control", "arm")], [1.0], guard_skew=False))
    assert same.difference == one.difference and same.p_value == one.p_value and same.verdict == one.verdict

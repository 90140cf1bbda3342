"""From finished runs to what was asked: every arm's scores and the paired comparisons, at each task and label fraction.

Runs are paired by the test images' identities and by seed; a study whose arms were judged on different images is an
error, never an intersection.
"""
# S seeds, n test images of a task

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.splits import units
from vision_mtl.evaluation.comparisons import Comparison, arm_score, compare
from vision_mtl.evaluation.instance_scores import InstanceTable, read_instances
from vision_mtl.evaluation.scores import Score
from vision_mtl.evaluation.statistics import expected_agreement
from vision_mtl.study.plan import Plan

Metric = Literal["accuracy", "balanced_accuracy"]
Finals = Mapping[tuple[str, float, int], Sequence[str]]  # arm, fraction, seed -> keys of the runs it is judged by


@dataclass(frozen=True)
class Sample:
    """One arm on one task at one fraction: `values` (S, n), the images' names and clusters (n,), rows by seed."""

    values: np.ndarray
    identities: np.ndarray
    clusters: np.ndarray
    rows: list[InstanceTable]


class Collection:
    """The judged images of a study's runs, each file read once."""

    def __init__(self, plan: Plan, finals: Finals, folder: Path, seeds: Sequence[int], metric: Metric) -> None:
        self.plan, self.finals, self.folder, self.seeds, self.metric = plan, finals, folder, seeds, metric
        self._read: dict[str, InstanceTable] = {}
        self._samples: dict[tuple[str, float, str], Sample | None] = {}

    def tasks_of(self, arm: str, fraction: float) -> list[str]:
        """The tasks that the arm is judged on."""
        keys = self.finals[arm, fraction, self.seeds[0]]
        return list(dict.fromkeys(task for key in keys for task in self.plan.nodes[key].options["tasks"]))

    def sample(self, arm: str, fraction: float, task: str) -> Sample | None:
        """The arm's values, or None where it has no test image of the task."""
        key = arm, fraction, task
        if key not in self._samples:
            self._samples[key] = self._sample(*key)
        return self._samples[key]

    def _sample(self, arm: str, fraction: float, task: str) -> Sample | None:
        found = [self._of(arm, fraction, seed, task) for seed in self.seeds]
        if not len(found[0]):
            return None
        for seed, one in zip(self.seeds, found, strict=True):
            _check_paired(found[0], one, f"arm {arm}, task {task}, seeds {self.seeds[0]} and {seed}")
        links = [one.columns["cluster"] for one in found]
        return Sample(
            np.stack([self._values(one) for one in found]),
            found[0].columns["identity"],
            units(links),
            found,
        )

    def _of(self, arm: str, fraction: float, seed: int, task: str) -> InstanceTable:
        """Rows of the run that trained the task."""
        keys = [k for k in self.finals[arm, fraction, seed] if task in self.plan.nodes[k].options["tasks"]]
        if not keys:
            raise UserError(f"arm {arm} has no run with task {task}.")
        node = self.plan.nodes[keys[0]]
        if node.key not in self._read:
            self._read[node.key] = read_instances(self.folder / node.folder)
        return self._read[node.key].of(task, self.plan.roles[node.stage].method, fraction)

    def _values(self, one: InstanceTable) -> np.ndarray:
        """(n,) whose mean is the score: with balanced accuracy, an image counts by how rare its class is."""
        values, true = one.columns["value"], one.columns["true"]
        if self.metric == "accuracy" or true[0] is None:
            return values
        _, inverse, counts = np.unique(true.astype(str), return_inverse=True, return_counts=True)
        return values * (len(values) / (len(counts) * counts[inverse]))

    def chance(self, sample: Sample) -> float | None:
        """The permutation baseline of a task with classes, averaged over seeds."""
        found = sample.rows
        if found[0].columns["true"][0] is None:
            return None
        names = np.unique(np.concatenate([one.columns["true"].astype(str) for one in found]))
        if self.metric == "balanced_accuracy":
            return 1 / len(names)
        chances = []
        for one in found:
            both = np.concatenate([one.columns["said"].astype(str), one.columns["true"].astype(str)])
            said, true = np.split(np.unique(both, return_inverse=True)[1], 2)
            chances.append(expected_agreement(said, true))
        return float(np.mean(chances))


def compare_arms(
    collection: Collection, pairs: Sequence[tuple[str, str]], fractions: Sequence[float], guard_skew: bool
) -> list[Comparison]:
    """Each (arm, baseline) at each fraction on every task that both have."""
    found = []
    for arm, baseline in pairs:
        for fraction in fractions:
            theirs = collection.tasks_of(baseline, fraction)
            for task in [t for t in collection.tasks_of(arm, fraction) if t in theirs]:
                a, b = (collection.sample(name, fraction, task) for name in (arm, baseline))
                if a is None or b is None:
                    continue
                _check_same(a, b, f"task {task}, arms {arm} and {baseline}")
                found.append(
                    compare(
                        a.values,
                        b.values,
                        units([a.clusters, b.clusters]),
                        task=task,
                        fraction=fraction,
                        arm=arm,
                        baseline=baseline,
                        guard_skew=guard_skew,
                    )
                )
    return found


def score_rows(
    collection: Collection, arms: Sequence[str], fractions: Sequence[float], guard_skew: bool
) -> list[dict[str, Any]]:
    """A row for each task, fraction and arm: the score over seeds, that of each seed, and chance."""
    rows = []
    for arm in arms:
        for fraction in fractions:
            for task in collection.tasks_of(arm, fraction):
                sample = collection.sample(arm, fraction, task)
                if sample is None:
                    continue
                by_seed = zip(collection.seeds, sample.values.mean(1).tolist(), strict=True)
                count, chance = len(sample.identities), collection.chance(sample)
                baseline = None if chance is None else Score(chance, None, None, count, count).to_json()
                rows.append(
                    {
                        "task": task,
                        "fraction": fraction,
                        "arm": arm,
                        "score": arm_score(sample.values, sample.clusters, guard_skew=guard_skew).to_json(),
                        "num_seeds": len(collection.seeds),
                        "chance": baseline,
                        "by_seed": [{"seed": seed, "value": value} for seed, value in by_seed],
                    }
                )
    return sorted(rows, key=lambda row: (row["task"], row["fraction"]))


def _check_paired(first: InstanceTable, other: InstanceTable, what: str) -> None:
    if not np.array_equal(first.columns["identity"], other.columns["identity"]):
        raise UserError(f"{what}: the test images differ, so nothing can be paired. Keep data.split_seed the same.")


def _check_same(a: Sample, b: Sample, what: str) -> None:
    if not np.array_equal(a.identities, b.identities):
        raise UserError(f"{what}: the test images differ, so nothing can be paired. Give both the same data and tasks.")

"""Every arm's scores and the paired comparisons, by task and label fraction, from the finished runs of a study.

Runs are paired by seed and by test image. Arms that were scored on different test images are an error; their
intersection is never taken.
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
Finals = Mapping[tuple[str, float, int], Sequence[str]]  # arm, fraction, seed -> keys of the runs that score it


@dataclass(frozen=True)
class ArmValues:
    """One arm on one task at one fraction: `values` (S, n), the images' identities and clusters (n,), seeds' tables."""

    values: np.ndarray
    identities: np.ndarray
    clusters: np.ndarray
    tables: list[InstanceTable]


class Collection:
    """The values of test images in a study's runs; each file is read once."""

    def __init__(self, plan: Plan, finals: Finals, folder: Path, seeds: Sequence[int], metric: Metric) -> None:
        self.plan, self.finals, self.folder, self.seeds, self.metric = plan, finals, folder, seeds, metric
        self._read: dict[str, InstanceTable] = {}
        self._values: dict[tuple[str, float, str], ArmValues | None] = {}

    def references(self, arm: str, fraction: float, task: str) -> dict[str, np.ndarray]:
        """Return the values (S, n) of the methods that the arm's runs score beside its own, by name."""
        stage = self.plan.nodes[self.finals[arm, fraction, self.seeds[0]][0]].stage
        found = {}
        for method in self.plan.roles[stage].references:
            tables = [self._table(arm, fraction, seed, task, method) for seed in self.seeds]
            if all(len(one) for one in tables):  # runs of earlier versions lack some methods
                found[method] = np.stack([self._image_values(one) for one in tables])
        return found

    def tasks_of(self, arm: str, fraction: float) -> list[str]:
        """Return the tasks that the arm is scored on."""
        keys = self.finals[arm, fraction, self.seeds[0]]
        return list(dict.fromkeys(task for key in keys for task in self.plan.nodes[key].options["tasks"]))

    def values(self, arm: str, fraction: float, task: str) -> ArmValues | None:
        """Return the arm's values, or None if it has no test image of the task."""
        key = arm, fraction, task
        if key not in self._values:
            self._values[key] = self._read_values(*key)
        return self._values[key]

    def by_seed(self, arm: str, fraction: float, task: str) -> np.ndarray:
        """Return the arm's score of each seed (S,); raise `KeyError` if it has no test image of the task."""
        found = self.values(arm, fraction, task)
        if found is None:
            raise KeyError(f"arm {arm} has no test image of task {task}")
        return found.values.mean(1)

    def _read_values(self, arm: str, fraction: float, task: str) -> ArmValues | None:
        found = [self._table(arm, fraction, seed, task) for seed in self.seeds]
        if not len(found[0]):
            return None
        for seed, one in zip(self.seeds, found, strict=True):
            _check_paired(found[0], one, f"arm {arm}, task {task}, seeds {self.seeds[0]} and {seed}")
        clusters = units([one.columns["cluster"] for one in found])
        values = np.stack([self._image_values(one) for one in found])
        return ArmValues(values, found[0].columns["identity"], clusters, found)

    def _table(self, arm: str, fraction: float, seed: int, task: str, method: str | None = None) -> InstanceTable:
        """Return the test images of the run that trained the task, by the method that scores the arm or another."""
        keys = [k for k in self.finals[arm, fraction, seed] if task in self.plan.nodes[k].options["tasks"]]
        if not keys:
            raise UserError(f"arm {arm} has no run with task {task}.")
        node = self.plan.nodes[keys[0]]
        if node.key not in self._read:
            self._read[node.key] = read_instances(self.folder / node.folder)
        return self._read[node.key].of(task, method or self.plan.roles[node.stage].method, fraction)

    def _image_values(self, one: InstanceTable) -> np.ndarray:
        """Return values (n,) whose mean is the score; for balanced accuracy, images of rare classes weigh more."""
        values, true = one.columns["value"], one.columns["true"]
        if self.metric == "accuracy" or true[0] is None:
            return values
        _, inverse, counts = np.unique(true.astype(str), return_inverse=True, return_counts=True)
        return values * (len(values) / (len(counts) * counts[inverse]))

    def parts(self, values: ArmValues) -> list[tuple[float, int]]:
        """Return each class's share of a balanced accuracy and its number of clusters; empty for other metrics."""
        true = values.tables[0].columns["true"]
        if self.metric == "accuracy" or true[0] is None:
            return []
        names = true.astype(str)
        classes = np.unique(names)
        return [(1 / len(classes), len(np.unique(values.clusters[names == name]))) for name in classes]

    def chance_score(self, values: ArmValues) -> float | None:
        """Return the score of permuted predictions, averaged over seeds; None for a task without classes."""
        found = values.tables
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
    collection: Collection,
    pairs: Sequence[tuple[str, str]],
    fractions: Sequence[float],
    guard_skew: bool,
    ropes: Mapping[str, float | None] | None = None,
) -> list[Comparison]:
    """Return the comparison of each (arm, baseline) at each fraction, on every task that both have.

    `ropes` are the largest differences that do not matter, by task; without one, every difference matters.
    """
    found = []
    for arm, baseline in pairs:
        for fraction in fractions:
            theirs = collection.tasks_of(baseline, fraction)
            for task in [t for t in collection.tasks_of(arm, fraction) if t in theirs]:
                a, b = (collection.values(name, fraction, task) for name in (arm, baseline))
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
                        rope=(ropes or {}).get(task),
                        parts=collection.parts(a),
                    )
                )
    return found


def score_rows(
    collection: Collection, arms: Sequence[str], fractions: Sequence[float], guard_skew: bool
) -> list[dict[str, Any]]:
    """Return a row per task, fraction and arm: the score over seeds, the score of each seed, and chance."""
    rows = []
    for arm in arms:
        for fraction in fractions:
            for task in collection.tasks_of(arm, fraction):
                found = collection.values(arm, fraction, task)
                if found is None:
                    continue
                by_seed = zip(collection.seeds, found.values.mean(1).tolist(), strict=True)
                count, chance = len(found.identities), collection.chance_score(found)
                baseline = None if chance is None else Score(chance, None, None, count, count).to_json()
                rows.append(
                    {
                        "task": task,
                        "fraction": fraction,
                        "arm": arm,
                        "score": arm_score(found.values, found.clusters, guard_skew=guard_skew).to_json(),
                        "num_seeds": len(collection.seeds),
                        "chance": baseline,
                        "references": {
                            name: arm_score(values, found.clusters, guard_skew=guard_skew).to_json()
                            for name, values in collection.references(arm, fraction, task).items()
                        },
                        "by_seed": [{"seed": seed, "value": value} for seed, value in by_seed],
                    }
                )
    return sorted(rows, key=lambda row: (row["task"], row["fraction"]))


def _check_paired(first: InstanceTable, other: InstanceTable, what: str) -> None:
    if not np.array_equal(first.columns["identity"], other.columns["identity"]):
        raise UserError(f"{what}: the test images differ, so runs cannot be paired. Give all the same data.split_seed.")


def _check_same(a: ArmValues, b: ArmValues, what: str) -> None:
    if not np.array_equal(a.identities, b.identities):
        raise UserError(f"{what}: the test images differ, so arms cannot be paired. Give both the same data and tasks.")

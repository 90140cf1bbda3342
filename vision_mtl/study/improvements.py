"""The probability of improvement of each arm over its baseline, for each task and over all independent tasks."""
# T tasks, S seeds

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_mtl.evaluation.improvement import probability_of_improvement
from vision_mtl.study.collect import Collection
from vision_mtl.study.independence import independent_only

Record = Mapping[str, Any]


def with_improvements(comparisons: Sequence[Record], collection: Collection) -> list[dict[str, Any]]:
    """Return the comparisons with `probability_of_improvement` on their task."""
    return [{**one, "probability_of_improvement": _probability([one], collection)} for one in comparisons]


def overall_improvements(comparisons: Sequence[Record], collection: Collection) -> list[dict[str, Any]]:
    """Return a row per arm, baseline and fraction: the probability over the independent tasks, and these."""
    groups: dict[tuple[str, str, float], list[Record]] = {}
    for one in independent_only(comparisons):
        groups.setdefault((one["arm"], one["baseline"], one["fraction"]), []).append(one)
    return [
        {
            "arm": arm,
            "baseline": baseline,
            "fraction": fraction,
            "tasks": [one["task"] for one in found],
            "probability_of_improvement": _probability(found, collection),
        }
        for (arm, baseline, fraction), found in groups.items()
    ]


def _probability(comparisons: Sequence[Record], collection: Collection) -> dict[str, Any]:
    scores = [
        np.stack([collection.by_seed(one[side], one["fraction"], one["task"]) for one in comparisons])  # (T, S)
        for side in ("arm", "baseline")
    ]
    return probability_of_improvement(*scores).to_json()

"""Comparisons that are not independent: the arm may know the task's images or labels from what it starts from.

They are judged as a family of their own. No headline, summary or mean over tasks includes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vision_mtl.core.errors import unknown
from vision_mtl.evaluation.comparisons import Comparison
from vision_mtl.evaluation.families import family
from vision_mtl.study.arms import Arm

MARK = "†"


def check_tasks(arms: Mapping[str, Arm], tasks: Iterable[str]) -> None:
    """Raise `UserError` if an arm's `not_independent` names a task that the study does not have."""
    known = list(tasks)
    for arm in arms.values():
        for task in arm.not_independent:
            if task not in known:
                raise unknown(f"task in study.arms.{arm.name}.not_independent", task, known)


def is_independent(arms: Mapping[str, Arm], task: str, *names: str) -> bool:
    """Return whether the arms `names` are all independent of the task's images and labels."""
    return not any(task in arms[name].not_independent for name in names)


def judged_apart(comparisons: Sequence[Comparison], arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Return a record per comparison, in order, with `independent`: Holm over the independent ones, and the others."""
    found: dict[int, dict[str, Any]] = {}
    apart = [is_independent(arms, one.task, one.arm, one.baseline) for one in comparisons]
    for independent in (True, False):
        places = [place for place, is_one in enumerate(apart) if is_one == independent]
        rows = family([comparisons[place] for place in places])
        found |= {place: row | {"independent": independent} for place, row in zip(places, rows, strict=True)}
    return [found[place] for place in range(len(comparisons))]


def with_independence(scores: Iterable[Mapping[str, Any]], arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Return the rows of scores with `independent`."""
    return [{**row, "independent": is_independent(arms, row["task"], row["arm"])} for row in scores]


def independent_only(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the comparisons that are independent; those of older studies all are."""
    return [row for row in rows if row.get("independent", True)]


def marked(name: str, row: Mapping[str, Any]) -> str:
    """Return the name with a dagger if the comparison or score is not independent."""
    return name if row.get("independent", True) else f"{name} {MARK}"

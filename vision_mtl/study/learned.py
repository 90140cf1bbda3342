"""What the runs of a study's arms learned to repair: `skill_learned` of each pretext, over the seeds."""
# S seeds

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from vision_mtl.core.run import RESULT
from vision_mtl.evaluation.scores import LEVEL, Score
from vision_mtl.study.plan import Node, Plan
from vision_mtl.study.starts import Finals, ancestors

Group = tuple[str, str, str]  # arm, stage, pretext


def learned_rows(plan: Plan, finals: Finals, folder: Path) -> list[dict[str, Any]]:
    """Return a row per pretext of the compared arms' runs: the mean of `skill_learned` with its interval over the runs.

    A row has `arms`, `stage`, `pretext`, `score`, `num_runs`, `num_learned` (runs that call it learned), `references`
    (the rules that it was measured against) and `runs` (their folders). Arms with the same runs share a row; an arm
    that has some of its runs in common with another has a row of all its own. Runs without `skill_learned` give none.
    """
    by_arm: dict[Group, dict[str, Mapping[str, Any]]] = {}
    for arm in dict.fromkeys(arm for arm, _, _ in finals):
        for node in _compared(plan, {place: keys for place, keys in finals.items() if place[0] == arm}):
            metrics = json.loads((folder / node.folder / RESULT).read_text("utf-8"))["metrics"]
            for pretext, found in metrics.get("skill_learned", {}).items():
                by_arm.setdefault((arm, node.stage, pretext), {})[node.folder] = found
    arms: dict[tuple[str, str, frozenset[str]], list[Group]] = {}  # those with the same runs
    for group, runs in by_arm.items():
        arms.setdefault((*group[1:], frozenset(runs)), []).append(group)
    return [_row([arm for arm, _, _ in same], *same[0][1:], by_arm[same[0]]) for same in arms.values()]


def mean_over_runs(values: Sequence[float]) -> Score:
    """Return the mean of one value per run with its 95 % t-interval over runs; one run has no interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Score(mean, None, None, count, count)
    reach = float(t.isf((1 - LEVEL) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Score(mean, mean - reach, mean + reach, count, count)


def _compared(plan: Plan, finals: Finals) -> list[Node]:
    """Return the runs of the compared seeds, without those that a grid was searched with."""
    keys = list(dict.fromkeys(key for keys in finals.values() for key in keys))
    return list({node.key: node for node in [*ancestors(plan, keys), *(plan.nodes[key] for key in keys)]}.values())


def _row(arms: Sequence[str], stage: str, pretext: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    references = [one["reference"] for one in found.values() if one.get("reference") is not None]
    return {
        "arms": list(arms),
        "stage": stage,
        "pretext": pretext,
        "score": mean_over_runs([one["value"] for one in found.values()]).to_json(),
        "num_runs": len(found),
        "num_learned": sum(bool(one.get("learned")) for one in found.values()),
        "references": list(dict.fromkeys(json.dumps(one) if not isinstance(one, str) else one for one in references)),
        "runs": list(found),
    }

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

Group = tuple[tuple[str, ...], str, str]  # arms, stage, pretext


def learned_rows(plan: Plan, finals: Finals, folder: Path) -> list[dict[str, Any]]:
    """Return a row per pretext of the compared arms' runs: the mean of `skill_learned` with its interval over the runs.

    A row has `arms`, `stage`, `pretext`, `score`, `num_runs`, `num_learned` (runs that call it learned), `references`
    (the rules that it was measured against) and `runs` (their folders). Runs without `skill_learned` give no row.
    """
    groups: dict[Group, dict[str, Mapping[str, Any]]] = {}
    for node in _compared(plan, finals):
        metrics = json.loads((folder / node.folder / RESULT).read_text("utf-8"))["metrics"]
        for pretext, found in metrics.get("skill_learned", {}).items():
            groups.setdefault((tuple(node.arms), node.stage, pretext), {})[node.folder] = found
    return [_row(*group, found) for group, found in groups.items()]


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


def _row(arms: tuple[str, ...], stage: str, pretext: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
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

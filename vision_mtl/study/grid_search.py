"""Search each arm's grid of options on validation images, with seeds that are not among the compared ones.

All grids have the same size (`arms.py`), so every arm has the same tuning budget. A candidate's score is the validation
score of the best weights, averaged over tasks and tuning seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.core.run import RESULT
from vision_mtl.study.arms import Arm
from vision_mtl.study.plan import Plan

OFFSET = 10_000  # from the study's first seed to the first tuning seed
Chosen = dict[tuple[str, float], dict[str, Any]]  # arm, fraction -> {"options", "tried"}


def tuning_seeds(seeds: Sequence[int], num_tuning_seeds: int) -> list[int]:
    """Return the tuning seeds, which are not among the compared `seeds`."""
    return [seeds[0] + OFFSET + number for number in range(num_tuning_seeds)]


def plan_candidates(
    plan: Plan, arms: Mapping[str, Arm], fractions: Sequence[float], seeds: Sequence[int]
) -> dict[tuple[str, float], list[list[str]]]:
    """Add every candidate's runs; return (arm, fraction) -> for each candidate, the keys of the runs that score it."""
    return {
        (name, fraction): [
            [key for seed in seeds for key in plan.add(arm, fraction, seed, candidate)]
            for candidate in arm.candidates()
        ]
        for name, arm in arms.items()
        if arm.grid
        for fraction in fractions
    }


def choose(
    plan: Plan, arms: Mapping[str, Arm], candidates: Mapping[tuple[str, float], list[list[str]]], folder: Path
) -> Chosen:
    """Return the best candidate on validation images for each arm and fraction; in a tie, the first."""
    found: Chosen = {}
    for (name, fraction), runs in candidates.items():
        scores = [
            float(np.mean([validation_score(folder / plan.nodes[key].folder, fraction) for key in keys]))
            for keys in runs
        ]
        tried = [
            {"options": options, "validation": score}
            for options, score in zip(arms[name].candidates(), scores, strict=True)
        ]
        found[name, fraction] = {"options": tried[int(np.argmax(scores))]["options"], "tried": tried}
    return found


def validation_score(folder: Path, fraction: float) -> float:
    """Return a finished run's score on validation images; raise `UserError` if it had none."""
    result = json.loads((folder / RESULT).read_text("utf-8"))
    metrics = result["metrics"]
    if "fractions" in metrics:  # a probe, which covers all fractions
        tasks = metrics["fractions"].get(f"{fraction:g}", metrics)["tasks"]
        scores = [row["chosen"]["linear"]["val_score"] for row in tasks.values()]
    else:
        scores = [metrics.get("validation", {}).get("score")]
    if None in scores or not np.isfinite(np.array(scores, float)).all():
        raise UserError(f"a grid is chosen on validation images, and {str(folder)!r} has none: leave the grid out.")
    return float(np.mean(scores))

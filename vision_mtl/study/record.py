"""The record of a study, `study.json`: all contents of its report, as plain values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.core.environment import environment
from vision_mtl.core.run import ENVIRONMENT, RESULT
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.study.arms import Arm, flat
from vision_mtl.study.costs import arm_costs, arm_starts
from vision_mtl.study.grid_search import Chosen
from vision_mtl.study.learned import learned_rows
from vision_mtl.study.plan import Node, Plan
from vision_mtl.study.runner import Runner, read_clock
from vision_mtl.study.starts import Finals

MAX_PICTURES = 4
TRAINING_COUNTS = ("steps", "forward_rows", "backbone_parameters")  # None in older runs
LABEL_COUNTS = ("num_labelled", "num_validation")  # of training and of validation images


def study_record(
    asked: Mapping[str, Any],
    tasks: Sequence[str],
    pool: Pool,
    arms: Mapping[str, Arm],
    plan: Plan,
    runner: Runner,
    *,
    finals: Finals,
    chosen: Chosen,
    scores: Sequence[dict[str, Any]],
    comparisons: Sequence[dict[str, Any]],
    improvements: Sequence[dict[str, Any]],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the question `asked`, the results and the cost; docs/results.md lists the keys."""
    rows = [run_row(node, runner.folder) for node in plan.nodes.values()]
    labels = {key: counts for row in rows for key, counts in row.pop("labels").items()}
    results = {node.folder: _result(node, runner.folder) for node in plan.nodes.values()}
    return {
        **asked,
        "split_hash": pool.summary()["split_hash"],
        "tasks": {task: task_row(pool, task, str(asked["metric"])) for task in tasks},
        "arms": {
            name: arm_row(arm, chosen) | {"starts": arm_starts(plan, finals, name, results)}
            for name, arm in arms.items()
        },
        "scores": [
            {**row, **labels.get((row["fraction"], row["task"]), dict.fromkeys(LABEL_COUNTS))} for row in scores
        ],
        "comparisons": list(comparisons),
        "improvements": list(improvements),
        "before": dict(before),
        "skill_learned": learned_rows(plan, finals, runner.folder),
        "runs": rows,
        "cost": study_cost(rows, plan, runner),
        "arm_costs": arm_costs(plan, finals, rows),
        "environment": environment(),
        "pictures": run_pictures(plan, runner.folder),
    }


def task_row(pool: Pool, task: str, metric: str) -> dict[str, Any]:
    """Return a task's kind, metric, classes and number of test images."""
    target, indices = pool.targets[task], pool.indices("test", task=task).numpy()
    balanced = metric == "balanced_accuracy" and label_kind(target.kind).one_class
    return {
        "kind": target.kind,
        "metric": "balanced accuracy" if balanced else label_kind(target.kind).image_value,
        "n": len(indices),
        "num_clusters": len(np.unique(pool.cluster[indices])),
        "num_classes": len(target.class_names) or None,
    }


def arm_row(arm: Arm, chosen: Chosen) -> dict[str, Any]:
    """Return an arm's stages and options, and the results of its grid search."""
    chosen_of_arm = [{"fraction": fraction, **found} for (name, fraction), found in chosen.items() if name == arm.name]
    return {
        "stages": list(arm.stages),
        "note": arm.note,
        "separate": arm.separate,
        "seed_offset": arm.seed_offset,
        "not_independent": list(arm.not_independent),
        "options": {stage: flat(options) for stage, options in arm.options.items()},
        "chosen": chosen_of_arm,
    }


def run_row(node: Node, folder: Path) -> dict[str, Any]:
    """Return one finished run: its folder, arms, times, and scores on test images."""
    result = _result(node, folder)
    clock = read_clock(folder / node.folder)
    tasks, teacher = result["metrics"].get("tasks", {}), result.get("teacher") or {}
    return {
        "folder": node.folder,
        "stage": node.stage,
        "arms": node.arms,
        "fraction": node.fraction,
        "seed": node.seed,
        "seconds": result["seconds"],
        "wall_seconds": clock["wall_seconds"],
        "images_seen": result["images_seen"],
        **{key: result.get(key) for key in TRAINING_COUNTS},
        "teacher_seconds": teacher.get("seconds"),  # of its whole pass, also if its features were cached
        "teacher_cached": teacher.get("cached"),
        "split_hash": result.get("data", {}).get("split_hash"),
        "commit": run_commit(folder / node.folder),
        "resumes": max(clock["starts"] - 1, 0),
        "scores": {task: _scores(row) for task, row in tasks.items()},
        "labels": label_counts(result["metrics"], node.fraction),
        "warnings": result["warnings"],
    }


def _result(node: Node, folder: Path) -> dict[str, Any]:
    return json.loads((folder / node.folder / RESULT).read_text("utf-8"))


def label_counts(metrics: Mapping[str, Any], fraction: float | None) -> dict[tuple[float, str], dict[str, Any]]:
    """Return (label fraction, task) -> the numbers of labels of a run; a probe covers several fractions."""
    parts = {float(name): part["tasks"] for name, part in metrics.get("fractions", {}).items()}
    whole = 1.0 if "fractions" in metrics else fraction
    if whole is not None:
        parts[whole] = metrics.get("tasks", {})
    rows = ((at, task, row) for at, tasks in parts.items() for task, row in tasks.items())
    return {(at, task): {key: row.get(key) for key in LABEL_COUNTS} for at, task, row in rows}


def run_commit(folder: Path) -> str | None:
    """Return the commit that a run was computed with; None if it is not recorded."""
    try:
        return json.loads((folder / ENVIRONMENT).read_text("utf-8")).get("commit")
    except (OSError, ValueError):
        return None


def commit_warning(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning if the runs are of several commits of the source, or of changed files."""
    commits = Counter(row["commit"] for row in rows if row["commit"])
    if len(commits) < 2 and not any(commit.endswith("+changes") for commit in commits):
        return []
    shown = ", ".join(f"{commit[:12]}{'+changes' * commit.endswith('+changes')}: {n}" for commit, n in commits.items())
    return [f"the runs are not all of one committed version of the source; runs by commit: {shown}."]


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a task's metrics as numbers; for a probe, those of the linear probe."""
    scores = row.get("linear", row)
    return {name: value["value"] for name, value in scores.items() if isinstance(value, Mapping) and "value" in value}


def study_cost(rows: Sequence[Mapping[str, Any]], plan: Plan, runner: Runner) -> dict[str, Any]:
    """Return the number of runs, their time and the images that they saw."""
    return {
        "num_runs": len(rows),
        "num_runs_unshared": plan.num_requested,
        "training_seconds": round(sum(row["seconds"] for row in rows), 1),
        "wall_seconds": round(sum(row["wall_seconds"] for row in rows), 1),
        "images_seen": sum(row["images_seen"] for row in rows),
        "num_jobs": runner.num_parallel,
    }


def run_pictures(plan: Plan, folder: Path) -> list[dict[str, str]]:
    """Return at most `MAX_PICTURES` figures of runs: those that stages declare, once per figure and set of arms.

    Their paths are relative to the study's folder.
    """
    found: list[dict[str, str]] = []
    shown: set[tuple[str, tuple[str, ...]]] = set()
    for node in plan.nodes.values():
        for figure, title in plan.roles[node.stage].pictures.items():
            path = folder / node.folder / "figures" / f"{figure}.png"
            if (figure, tuple(node.arms)) in shown or not path.is_file() or len(found) >= MAX_PICTURES:
                continue
            shown.add((figure, tuple(node.arms)))
            caption = f"{title}; run {node.folder.rpartition('/')[2]}, of {', '.join(node.arms)}"
            found.append({"title": title, "caption": caption, "path": str(path.relative_to(folder))})
    return found

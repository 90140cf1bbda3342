"""The numbers of a study as CSV, with all digits: shares in [0, 1], errors in units of the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vision_mtl.evaluation.classes import csv_text
from vision_mtl.study.tables import chance_of, chances, reference_names

Record = Mapping[str, Any]
COMPARISON_KEYS = (
    *("p_value", "p_value_floor", "p_value_holm", "minimum_detectable", "verdict", "reason"),
    *("num_seeds", "n", "std", "image_error", "skewness", "pretrainings", "scope", "rope", "within_rope"),
)


def csv_files(record: Record) -> dict[str, str]:
    """Return name -> text of the files in `tables/`."""
    found = {"comparisons": _comparisons(record), "scores": _scores(record), "runs": _runs(record)}
    found |= {"improvements": _improvements(record)} if record.get("improvements") else {}
    found |= {"arm_costs": csv_text(record["arm_costs"], digits=None)} if record.get("arm_costs") else {}
    return found | ({"learned": _learned(record)} if record.get("skill_learned") else {})


def _comparisons(record: Record) -> str:
    known, rows = chances(record), []
    for one in record["comparisons"]:
        row = {key: one[key] for key in ("task", "fraction", "arm", "baseline")}
        row |= _ends("difference", one["difference"]) | _ends("difference_holm", one["difference_holm"])
        row |= {"level_holm": one["difference_holm"]["level"]} | {key: one.get(key) for key in COMPARISON_KEYS}
        row |= _ends("arm_score", one["arm_score"]) | _ends("baseline_score", one["baseline_score"])
        row |= _ends("probability_of_improvement", one.get("probability_of_improvement"))
        rows.append(row | _ends("chance", chance_of(one, known)) | {"independent": one.get("independent", True)})
    return csv_text(rows, digits=None)


def _scores(record: Record) -> str:
    """Return the scores, with a column per seed."""
    seeds = sorted({one["seed"] for row in record["scores"] for one in row["by_seed"]})
    rows = []
    for row in record["scores"]:
        values = {one["seed"]: one["value"] for one in row["by_seed"]}
        flat = {key: row.get(key) for key in ("task", "fraction", "arm", "num_labelled", "num_validation", "num_seeds")}
        flat |= _ends("score", row["score"]) | {"n": row["score"]["n"], "num_clusters": row["score"]["num_clusters"]}
        flat |= _ends("chance", row["chance"])
        for name in reference_names(record):
            flat |= _ends(name, row.get("references", {}).get(name))
        flat["independent"] = row.get("independent", True)
        rows.append(flat | {f"seed_{seed}": values.get(seed) for seed in seeds})
    return csv_text(rows, digits=None)


def _improvements(record: Record) -> str:
    """Return the probability of improvement over the independent tasks, with a row per arm, baseline and fraction."""
    rows = []
    for row in record["improvements"]:
        flat = {key: row[key] for key in ("arm", "baseline", "fraction")} | {"tasks": "; ".join(row["tasks"])}
        rows.append(flat | _ends("probability_of_improvement", row["probability_of_improvement"]))
    return csv_text(rows, digits=None)


def _learned(record: Record) -> str:
    """Return the skill learned, with a row per arms, stage and pretext."""
    rows = []
    for row in record["skill_learned"]:
        flat = {"arms": "; ".join(row["arms"]), "stage": row["stage"], "pretext": row["pretext"]}
        flat |= _ends("skill_learned", row["score"]) | {"num_runs": row["num_runs"], "num_learned": row["num_learned"]}
        rows.append(flat | {"references": "; ".join(row["references"])})
    return csv_text(rows, digits=None)


def _runs(record: Record) -> str:
    """Return the runs, with a column per task and metric; lists are joined by "; "."""
    columns = dict.fromkeys(
        (task, metric) for run in record["runs"] for task, found in run["scores"].items() for metric in found
    )
    rows = []
    for run in record["runs"]:
        flat = {key: value for key, value in run.items() if key != "scores"}
        flat |= {key: "; ".join(run[key]) for key in ("arms", "warnings")}
        rows.append(flat | {f"{task}.{metric}": run["scores"].get(task, {}).get(metric) for task, metric in columns})
    return csv_text(rows, digits=None)


def _ends(name: str, score: Any) -> dict[str, Any]:
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {key: None if score is None else score[end] for key, end in ends.items()}

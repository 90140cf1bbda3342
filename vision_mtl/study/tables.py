"""The tables of a study's report, for people: in words, and in the units that its sentences use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.study.number_format import (
    NONE,
    Unit,
    duration_words,
    level_words,
    measure_words,
    p_words,
    share_words,
    unit_of,
)
from vision_mtl.study.words import reason_words

Record = Mapping[str, Any]
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "pixel_accuracy", "mean_iou", "calibration_error")


@dataclass(frozen=True)
class Table:
    """Cells of text below the names of their columns; those in `numbers` stand to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


def units(record: Record) -> dict[str, Unit]:
    """Task -> how its values are told."""
    found: dict[str, list[Any]] = {task: [] for task in record["tasks"]}
    for row in [*record["scores"], *record["comparisons"]]:
        found[row["task"]].append(row["difference"] if "difference" in row else row["score"])
    return {
        task: unit_of(label_kind(record["tasks"][task]["kind"]).has_classes, scores) for task, scores in found.items()
    }


def chances(record: Record) -> dict[tuple[str, float, str], Any]:
    """(task, share of the labels, arm) -> what shuffled answers score, where that is known."""
    return {(row["task"], row["fraction"], row["arm"]): row["chance"] for row in record["scores"] if row["chance"]}


def chance_of(one: Record, known: Mapping[tuple[str, float, str], Any]) -> Any:
    """The chance score beside a comparison: its arm's, or its baseline's; None without either."""
    return next((c for arm in ("arm", "baseline") if (c := known.get((one["task"], one["fraction"], one[arm])))), None)


def tasks_table(record: Record) -> Table:
    """What is measured, and on how much."""
    rows = [
        [
            *(name, task["kind"].replace("_", " "), measure_words(task)),
            *(_count(task[key]) for key in ("num_classes", "n", "num_clusters")),
        ]
        for name, task in record["tasks"].items()
    ]
    numbers = ["classes", "test images", "independent clusters"]
    return Table(["task", "kind", "measure", *numbers], rows, numbers)


def comparisons_table(record: Record) -> Table:
    """Every comparison with all that the verdict goes by."""
    numbers = ["difference [95 %]", "deciding interval", "level", "arm's score", "baseline's score", "chance"]
    numbers += ["p", "p, Holm", "floor of p", "could have seen", "std over seeds", "seeds", "n"]
    told, known = units(record), chances(record)
    rows = [_comparison_row(one, told[one["task"]], chance_of(one, known)) for one in record["comparisons"]]
    columns = ["task", "labels", "arm", "baseline", "verdict", *numbers[:6], "unit", *numbers[6:], "reason"]
    return Table(columns, rows, numbers)


def scores_table(record: Record) -> Table:
    """Every arm's score beside chance, and its value in each seed."""
    told = units(record)
    numbers = ["labelled images", "score [95 %]", "chance [95 %]", "seeds", "n", "clusters"]
    rows = []
    for row in record["scores"]:
        unit, score = told[row["task"]], row["score"]
        seeds = ", ".join(f"{one['seed']}: {unit.value(one['value'])}" for one in row["by_seed"])
        rows.append(
            [
                *(row["task"], share_words(row["fraction"]), row["arm"], _count(row["num_labelled"])),
                *(unit.score(score), unit.score(row["chance"]), _unit_name(unit), str(row["num_seeds"])),
                *(_count(score["n"]), _count(score["num_clusters"]), seeds),
            ]
        )
    columns = ["task", "labels", "arm", *numbers[:3], "unit", *numbers[3:], "by seed"]
    return Table(columns, rows, numbers)


def design_table(record: Record) -> Table:
    """What each comparison was expected to be able to show before any run, beside what it showed."""
    told, found = units(record), {_key(one): one for one in record["comparisons"]}
    rows = []
    for row in record["before"]["rows"]:
        unit, one = told[row["task"]], found.get(_key(row))
        after = [NONE] * 4
        if one is not None:
            after = [unit.value(one["minimum_detectable"]), unit.value(one["std"])]
            after += [unit.score(one["difference"], signed=True), one["verdict"]]
        before = [row["task"], share_words(row["fraction"]), f"{row['arm']} against {row['baseline']}"]
        rows.append([*before, unit.value(row["minimum_detectable"]), *after[:3], unit.name, after[3]])
    numbers = ["detectable, before", "detectable, after", "std over seeds, after", "difference found [95 %]"]
    return Table(["task", "labels", "comparison", *numbers, "unit", "verdict"], rows, numbers)


def tuning_table(record: Record) -> Table:
    """What each arm tried, and what it chose on validation images."""
    rows = []
    for arm, recipe in record["arms"].items():
        for choice in recipe["chosen"]:
            tried = choice["tried"] or [{"options": choice["options"], "validation": None}]
            rows += [
                [
                    *(arm, share_words(choice["fraction"]), options_words(one["options"])),
                    NONE if one["validation"] is None else f"{one['validation']:.3f}",
                    "chosen" if one["options"] == choice["options"] else "",
                ]
                for one in tried
            ]
    return Table(["arm", "labels", "options", "validation score", ""], rows, ["validation score"])


def runs_table(record: Record) -> Table:
    """A row for each run, its scores in short."""
    numbers = ["seed", "training", "wall", "images seen", "resumed"]
    rows = [
        [
            *(run["folder"], run["stage"], ", ".join(run["arms"]), share_words(run["fraction"]), str(run["seed"])),
            *(_run_scores(run["scores"], record["tasks"]), duration_words(run["seconds"])),
            *(duration_words(run["wall_seconds"]), _count(run["images_seen"]), str(run["resumes"])),
            "; ".join(run["warnings"]),
        ]
        for run in record["runs"]
    ]
    return Table(["folder", "stage", "arms", "labels", "seed", "scores", *numbers[1:], "warnings"], rows, numbers)


def recipe_table(arm: Record) -> Table:
    """What the arm sets, stage by stage."""
    rows = [
        [stage, option, value_words(value)]
        for stage, options in arm["options"].items()
        for option, value in options.items()
    ]
    return Table(["stage", "option", "value"], rows)


def environment_table(record: Record) -> Table:
    """What the results depend on beside the config."""
    environment = dict(record["environment"])
    versions = environment.pop("versions", {})
    command = environment.pop("command", [])
    rows = [["command", " ".join(map(str, command))]] if command else []
    rows += [[key, value_words(value)] for key, value in environment.items()]
    return Table(["", "version or value"], rows + [[key, value_words(value)] for key, value in versions.items()])


def cost_table(record: Record) -> Table:
    """What the study took, and what sharing runs saved."""
    cost = record["cost"]
    if not cost:
        return Table(["", "total"], [])
    saved = cost["num_runs_unshared"] - cost["num_runs"]
    rows = [
        ["runs", f"{cost['num_runs']:,}"],
        ["runs that sharing saved", f"{saved:,} of {cost['num_runs_unshared']:,}"],
        ["training time, all runs", duration_words(cost["training_seconds"])],
        ["wall time, all runs", duration_words(cost["wall_seconds"])],
        ["images seen", _count(cost["images_seen"])],
        ["runs at a time", str(cost["num_jobs"])],
    ]
    return Table(["", "total"], rows, ["total"])


def options_words(options: Record) -> str:
    """`optim.learning_rate = 0.003, optim.steps = 100`; "defaults" for none."""
    return ", ".join(f"{key} = {value_words(value)}" for key, value in options.items()) or "defaults"


def value_words(value: Any) -> str:
    """An option's value: text as it is, all else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _comparison_row(one: Record, unit: Unit, chance: Any) -> list[str]:
    level = one["difference_holm"]["level"]
    return [
        *(one["task"], share_words(one["fraction"]), one["arm"], one["baseline"], one["verdict"]),
        unit.score(one["difference"], signed=True),
        unit.interval(one["difference_holm"]) or NONE,
        NONE if level is None else level_words(level),
        *(unit.score(one["arm_score"]), unit.score(one["baseline_score"])),
        NONE if chance is None else unit.value(chance["value"]),
        unit.name,
        *(p_words(one[key]) for key in ("p_value", "p_value_holm", "p_value_floor")),
        *(unit.value(one[key]) for key in ("minimum_detectable", "std")),
        *(str(one["num_seeds"]), _count(one["n"]), reason_words(one, unit)),
    ]


def _run_scores(scores: Record, tasks: Record) -> str:
    """One metric a task, the one that the study goes by where the run has it."""
    told = []
    for task, found in scores.items():
        wanted = tasks[task]["metric"].replace(" ", "_") if task in tasks else ""
        metric = wanted if wanted in found else next(iter(found), None)
        value = found.get(metric)
        if metric is not None and value is not None:
            unit = unit_of(metric in SHARES, [{"value": value, "low": None}])
            told.append(f"{task}: {metric.replace('_', ' ')} {unit.value(value)}")
    return "; ".join(told)


def _key(one: Record) -> tuple[str, float, str, str]:
    return one["task"], one["fraction"], one["arm"], one["baseline"]


def _unit_name(unit: Unit) -> str:
    return "%" if unit.name == "points" else unit.name


def _count(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"

"""The tables of a study's report, as text, in the units that its sentences use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.study.independence import marked
from vision_mtl.study.number_format import (
    NONE,
    Unit,
    format_duration,
    format_fraction,
    format_level,
    format_measure,
    format_p_value,
    unit_of,
)
from vision_mtl.study.verdict_text import is_beyond, verdict_reason

Record = Mapping[str, Any]
NOTHING = "none"  # instead of a detectable difference that is larger than any possible one
PERCENT = Unit(100, 0, "%")
OPTIONAL = {"rope": "rope", "improves, %": "probability_of_improvement"}  # columns -> keys that older studies lack
COSTS = {"images": "images_seen", "steps": "steps", "rows through the backbone": "forward_rows"}
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "pixel_accuracy", "mean_iou", "calibration_error")


@dataclass(frozen=True)
class Table:
    """Cells of text below their columns' names; the columns in `numbers` are right-aligned."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


def units(record: Record) -> dict[str, Unit]:
    """Return each task's format of values."""
    found: dict[str, list[Any]] = {task: [] for task in record["tasks"]}
    for row in [*record["scores"], *record["comparisons"]]:
        found[row["task"]].append(row["difference"] if "difference" in row else row["score"])
    return {
        task: unit_of(label_kind(record["tasks"][task]["kind"]).has_classes, scores) for task, scores in found.items()
    }


def chances(record: Record) -> dict[tuple[str, float, str], Any]:
    """Return (task, label fraction, arm) -> the score of permuted predictions, if known."""
    return {(row["task"], row["fraction"], row["arm"]): row["chance"] for row in record["scores"] if row["chance"]}


def chance_of(one: Record, known: Mapping[tuple[str, float, str], Any]) -> Any:
    """Return the chance score of a comparison: its arm's, or else its baseline's, or else None."""
    return next((c for arm in ("arm", "baseline") if (c := known.get((one["task"], one["fraction"], one[arm])))), None)


def reference_names(record: Record) -> list[str]:
    """Return the methods that some arm's runs score beside their own, such as kNN on HOG; old studies have none."""
    return list(dict.fromkeys(name for row in record["scores"] for name in row.get("references", {})))


def tasks_table(record: Record) -> Table:
    """Return the tasks: metric, classes, test images."""
    rows = [
        [
            *(name, task["kind"].replace("_", " "), format_measure(task)),
            *(_count(task[key]) for key in ("num_classes", "n", "num_clusters")),
        ]
        for name, task in record["tasks"].items()
    ]
    numbers = ["classes", "test images", "independent clusters"]
    return Table(["task", "kind", "measure", *numbers], rows, numbers)


def comparisons_table(record: Record) -> Table:
    """Return every comparison with the numbers behind its verdict."""
    numbers = ["difference [95 %]", "deciding interval", "level", "arm's score", "baseline's score", "chance"]
    numbers += [
        "rope",
        "improves, %",
        "p",
        "p, Holm",
        "floor of p",
        "detectable",
        "std over seeds",
        "seeds",
        "pretrainings",
        "n",
    ]
    formats, known = units(record), chances(record)
    rows = [_comparison_row(one, formats[one["task"]], chance_of(one, known)) for one in record["comparisons"]]
    kept = [
        name for name, key in OPTIONAL.items() if any(one.get(key) for one in record["comparisons"])
    ]  # a rope of 0 is none
    columns = ["task", "labels", "arm", "baseline", "verdict", *numbers[:6], "unit", *numbers[6:], "reason"]
    return _without(Table(columns, rows, numbers), [name for name in OPTIONAL if name not in kept])


def _without(table: Table, names: Sequence[str]) -> Table:
    """Return the table without some columns, such as those that an older study lacks."""
    places = [place for place, column in enumerate(table.columns) if column not in names]
    rows = [[row[place] for place in places] for row in table.rows]
    return Table([table.columns[place] for place in places], rows, table.numbers)


def improvements_table(record: Record) -> Table:
    """Return the probability of improvement of each arm over its baseline, over the independent tasks."""
    rows = [
        [
            *(row["arm"], row["baseline"], format_fraction(row["fraction"]), ", ".join(row["tasks"])),
            PERCENT.score(row["probability_of_improvement"]),
        ]
        for row in record.get("improvements", [])
    ]
    numbers = ["probability of improvement, % [95 %]"]
    return Table(["arm", "baseline", "labels", "tasks", *numbers], rows, numbers)


def arms_table(record: Record) -> Table:
    """Return what each arm starts from, and the tasks that this may know; empty if none is published or named."""
    rows = [
        [
            *(name, ", then ".join(arm["stages"])),
            *("; ".join(arm.get("starts", [])), ", ".join(arm.get("not_independent", []))),
        ]
        for name, arm in record["arms"].items()
    ]
    shown = rows if any(row[2] or row[3] for row in rows) else []
    return Table(["arm", "stages", "starts from", "not independent on"], [[c or NONE for c in row] for row in shown])


def arm_costs_table(record: Record) -> Table:
    """Return what one seed of each arm costs."""
    rows = [
        [
            *(row["arm"], format_fraction(row["fraction"])),
            *(_count(None if row[key] is None else round(row[key])) for key in COSTS.values()),
            *(format_duration(row[f"{part}_seconds"]) for part in ("training", "teacher", "other")),
            _count(row["backbone_parameters"]),
        ]
        for row in record.get("arm_costs", [])
    ]
    numbers = [*COSTS, "training", "teacher's pass", "start, scoring, figures", "backbone's parameters"]
    return Table(["arm", "labels", *numbers], rows, numbers)


def scores_table(record: Record) -> Table:
    """Return every arm's score, chance, and the score of each seed."""
    formats = units(record)
    references = reference_names(record)
    numbers = ["training labels", "validation labels", "score [95 %]", "chance [95 %]"]
    numbers += [*(name.replace("_", " ") for name in references), "seeds", "n", "clusters"]
    rows = []
    for row in record["scores"]:
        unit, score = formats[row["task"]], row["score"]
        seeds = ", ".join(f"{one['seed']}: {unit.value(one['value'])}" for one in row["by_seed"])
        rows.append(
            [
                *(row["task"], format_fraction(row["fraction"]), marked(row["arm"], row)),
                *(_count(row["num_labelled"]), _count(row.get("num_validation"))),
                *(unit.score(score), unit.score(row["chance"])),
                *(unit.score(row.get("references", {}).get(name)) for name in references),
                *(_unit_name(unit), str(row["num_seeds"]), _count(score["n"]), _count(score["num_clusters"]), seeds),
            ]
        )
    columns = ["task", "labels", "arm", *numbers[:-3], "unit", *numbers[-3:], "by seed"]
    return Table(columns, rows, numbers)


def learned_table(record: Record) -> Table:
    """Return what the runs of the arms learned to repair; empty for a study without pretexts, or of older runs."""
    unit, rows = Unit(1, 3, "skill"), []
    for row in record.get("skill_learned", []):
        learned = f"{row['num_learned']} of {row['num_runs']}"
        named = [", ".join(row["arms"]), row["stage"], row["pretext"]]
        against = "; ".join(dict.fromkeys(_reference(text) for text in row["references"]))
        rows.append([*named, unit.score(row["score"], signed=True), learned, against])
    numbers = ["skill learned [95 %]", "runs that learned it"]
    return Table(["arms", "stage", "pretext", *numbers, "against"], rows, numbers)


def _reference(text: str) -> str:
    """Return what a skill is measured against: a rule, or the rules of several sources (JSON), without the sources."""
    if not text.startswith("{"):
        return text
    return f"{' or '.join(sorted(set(json.loads(text).values())))}, by source"


def design_table(record: Record) -> Table:
    """Return the detectable difference of each comparison, before and after the runs, and what they found."""
    formats, found = units(record), {_key(one): one for one in record["comparisons"]}
    rows = []
    for row in record["before"]["rows"]:
        unit, one = formats[row["task"]], found.get(_key(row))
        after = [NONE] * 4
        if one is not None:
            after = [_detectable(one, unit), unit.value(one["std"])]
            after += [unit.score(one["difference"], signed=True), marked(one["verdict"], one)]
        before = [row["task"], format_fraction(row["fraction"]), f"{row['arm']} against {row['baseline']}"]
        planned = row["minimum_detectable"]
        shown = NOTHING if planned is not None and planned > 1 else unit.value(planned)  # a plan has shares only
        rows.append([*before, shown, *after[:3], unit.name, after[3]])
    numbers = ["detectable, before", "detectable, after", "std over seeds, after", "difference found [95 %]"]
    return Table(["task", "labels", "comparison", *numbers, "unit", "verdict"], rows, numbers)


def tuning_table(record: Record) -> Table:
    """Return the options that each arm tried, with validation scores, and those chosen."""
    rows = []
    for arm, recipe in record["arms"].items():
        for choice in recipe["chosen"]:
            tried = choice["tried"] or [{"options": choice["options"], "validation": None}]
            rows += [
                [
                    *(arm, format_fraction(choice["fraction"]), format_options(one["options"])),
                    NONE if one["validation"] is None else f"{one['validation']:.3f}",
                    "chosen" if one["options"] == choice["options"] else "",
                ]
                for one in tried
            ]
    return Table(["arm", "labels", "options", "validation score", ""], rows, ["validation score"])


def runs_table(record: Record) -> Table:
    """Return a row per run, with one score per task."""
    numbers = ["seed", "training", "wall", "images seen", "resumed"]
    rows = [
        [
            *(run["folder"], run["stage"], ", ".join(run["arms"]), format_fraction(run["fraction"]), str(run["seed"])),
            *(_run_scores(run["scores"], record["tasks"]), format_duration(run["seconds"])),
            *(format_duration(run["wall_seconds"]), _count(run["images_seen"]), str(run["resumes"])),
            "; ".join(run["warnings"]),
        ]
        for run in record["runs"]
    ]
    return Table(["folder", "stage", "arms", "labels", "seed", "scores", *numbers[1:], "warnings"], rows, numbers)


def recipe_table(arm: Record) -> Table:
    """Return the options that the arm sets, stage by stage."""
    rows = [
        [stage, option, format_value(value)]
        for stage, options in arm["options"].items()
        for option, value in options.items()
    ]
    return Table(["stage", "option", "value"], rows)


def environment_table(record: Record) -> Table:
    """Return what the results depend on in addition to the config: command, machine, versions."""
    environment = dict(record["environment"])
    versions = environment.pop("versions", {})
    command = environment.pop("command", [])
    rows = [["command", " ".join(map(str, command))]] if command else []
    rows += [["hash of the splits", record["split_hash"]]] if record.get("split_hash") else []
    rows += [[key, format_value(value)] for key, value in environment.items()]
    return Table(["", "version or value"], rows + [[key, format_value(value)] for key, value in versions.items()])


def cost_table(record: Record) -> Table:
    """Return the cost of the study, and the runs that sharing saved."""
    cost = record["cost"]
    if not cost:
        return Table(["", "total"], [])
    saved = cost["num_runs_unshared"] - cost["num_runs"]
    rows = [
        ["runs", f"{cost['num_runs']:,}"],
        ["runs that sharing saved", f"{saved:,} of {cost['num_runs_unshared']:,}"],
        ["training time, all runs", format_duration(cost["training_seconds"])],
        ["wall time, all runs", format_duration(cost["wall_seconds"])],
        ["images seen", _count(cost["images_seen"])],
        ["runs at a time", str(cost["num_jobs"])],
    ]
    return Table(["", "total"], rows, ["total"])


def format_options(options: Record) -> str:
    """Return options as `optim.learning_rate = 0.003, optim.steps = 100`; "defaults" for none."""
    return ", ".join(f"{key} = {format_value(value)}" for key, value in options.items()) or "defaults"


def format_value(value: Any) -> str:
    """Return an option's value: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _comparison_row(one: Record, unit: Unit, chance: Any) -> list[str]:
    level = one["difference_holm"]["level"]
    return [
        *(one["task"], format_fraction(one["fraction"]), one["arm"], one["baseline"], marked(one["verdict"], one)),
        unit.score(one["difference"], signed=True),
        unit.interval(one["difference_holm"]) or NONE,
        NONE if level is None else format_level(level),
        *(unit.score(one["arm_score"]), unit.score(one["baseline_score"])),
        NONE if chance is None else unit.value(chance["value"]),
        unit.name,
        unit.value(one.get("rope")),
        PERCENT.score(one.get("probability_of_improvement")),
        *(format_p_value(one[key]) for key in ("p_value", "p_value_holm", "p_value_floor")),
        *(_detectable(one, unit), unit.value(one["std"])),
        *(str(one["num_seeds"]), _count(one.get("pretrainings")), _count(one["n"]), verdict_reason(one, unit)),
    ]


def _detectable(one: Record, unit: Unit) -> str:
    return NOTHING if is_beyond(one) else unit.value(one["minimum_detectable"])


def _run_scores(scores: Record, tasks: Record) -> str:
    """Return one metric per task: the study's, if the run has it."""
    texts = []
    for task, found in scores.items():
        wanted = tasks[task]["metric"].replace(" ", "_") if task in tasks else ""
        metric = wanted if wanted in found else next(iter(found), None)
        value = found.get(metric)
        if metric is not None and value is not None:
            unit = unit_of(metric in SHARES, [{"value": value, "low": None}])
            texts.append(f"{task}: {metric.replace('_', ' ')} {unit.value(value)}")
    return "; ".join(texts)


def _key(one: Record) -> tuple[str, float, str, str]:
    return one["task"], one["fraction"], one["arm"], one["baseline"]


def _unit_name(unit: Unit) -> str:
    return "%" if unit.name == "points" else unit.name


def _count(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"

"""The tables of scores on held-out images: studies, repairs, comparisons with peers, rendered sets, decoders."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.study.independence import marked
from vision_mtl.study.number_format import format_duration, format_fraction
from vision_mtl.study.verdict_text import plain_verdict

Record = Mapping[str, Any]
Rows = list[list[str]]  # the first is the header


def study(data: Record) -> Rows:
    """Return every comparison of a study, with the verdict after Holm's correction; A/A controls are marked."""
    header = ["task", "labels", "arm", "against", "score", "baseline", "difference", "detectable", "verdict"]
    labels = {(row["task"], row["fraction"], row["arm"]): _labels(row) for row in data["scores"]}
    return [
        header,
        *(
            [
                one["task"],
                labels.get((one["task"], one["fraction"], one["arm"]), ""),
                marked(f"{one['arm']} (A/A control)" if is_control(data, one) else one["arm"], one),
                one["baseline"],
                *(share(one[key]["value"]) for key in ("arm_score", "baseline_score")),
                difference(one["difference"], bold=is_decided(one)),
                "" if one["minimum_detectable"] is None else share(one["minimum_detectable"]),
                one["verdict"],
            ]
            for one in data["comparisons"]
        ),
    ]


def scores(data: Record) -> Rows:
    """Return a row per arm and label fraction: its score on each task and what one seed costs, on one core.

    A score whose comparison with the arm's first baseline is decided has its verdict. The last column is that baseline.
    """
    several = len({row["fraction"] for row in data["scores"]}) > 1
    tasks = list(dict.fromkeys(row["task"] for row in data["scores"]))
    values = {(row["arm"], row["fraction"], row["task"]): row for row in data["scores"]}
    judged = {(one["arm"], one["fraction"], one["task"], one["baseline"]): one for one in data["comparisons"]}

    def cell(arm: str, fraction: float, task: str, baseline: str) -> str:
        row, one = values.get((arm, fraction, task)), judged.get((arm, fraction, task, baseline))
        if row is None:  # the arm lacks the task
            return ""
        text = marked(share(row["score"]["value"]), row)
        return f"{text} {plain_verdict(one['verdict'])}" if one and is_decided(one) else text

    found = [["recipe", *(["labels"] if several else []), *tasks, "minutes", "compared with"]]
    for cost in data["arm_costs"]:
        arm, fraction = cost["arm"], cost["fraction"]
        baseline = next((one["baseline"] for one in data["comparisons"] if one["arm"] == arm), "")
        minutes = sum(cost[f"{part}_seconds"] for part in ("training", "teacher", "other")) / 60
        cells = [cell(arm, fraction, task, baseline) for task in tasks]
        found.append([arm, *([format_fraction(fraction)] if several else []), *cells, f"{minutes:.0f}", baseline])
    return found


def recipes(data: Record) -> Rows:
    """Return what each arm gained over its baseline on each task, with the verdict; marks as in the report."""
    header = ["do this", "instead of", "task", "labels", "score", "gain", "after Holm", "wins", "verdict"]
    labels = {(row["task"], row["fraction"], row["arm"]): _labels(row) for row in data["scores"]}
    overall = [
        [
            *(row["arm"], row["baseline"], f"*{len(row['tasks'])} task{'s' * (len(row['tasks']) > 1)}*"),
            *(format_fraction(row["fraction"]), *[""] * 3),
            *(f"*{_wins(row)}*", ""),
        ]
        for row in data.get("improvements", [])
    ]
    rows = [
        [
            *(one["arm"], one["baseline"], marked(one["task"], one)),
            labels.get((one["task"], one["fraction"], one["arm"]), ""),
            share(one["arm_score"]["value"]),
            difference(one["difference"], bold=is_decided(one)),
            ends(one["difference_holm"]),
            *(_wins(one), one["verdict"]),
        ]
        for one in data["comparisons"]
    ]
    pairs = dict.fromkeys((row[0], row[1]) for row in rows)
    return [header, *(row for pair in pairs for row in [*rows, *overall] if (row[0], row[1]) == pair)]


def costs(data: Record) -> Rows:
    """Return what one seed of each arm costs, all its stages together, and what it starts from."""
    header = [
        "arm",
        "labels",
        "starts from",
        "images",
        "steps",
        "rows",
        "training",
        "teacher's pass",
        "the rest",
        "parameters",
    ]
    return [
        header,
        *(
            [
                *(row["arm"], format_fraction(row["fraction"])),
                *("; ".join(data["arms"][row["arm"]].get("starts", [])) or "random weights",),
                *("" if row[key] is None else f"{row[key]:,.0f}" for key in ("images_seen", "steps", "forward_rows")),
                *(format_duration(row[f"{part}_seconds"]) for part in ("training", "teacher", "other")),
                "" if row["backbone_parameters"] is None else f"{row['backbone_parameters'] / 1e6:.1f} M",
            ]
            for row in data.get("arm_costs", [])
        ),
    ]


# what renders docs/studies/NAME/study.json
OF_A_STUDY = {"study": study, "scores": scores, "recipes": recipes, "costs": costs}


def is_control(data: Record, one: Record) -> bool:
    """Return True if both arms of a comparison are one recipe, which differs in the seeds only."""
    arm, baseline = (data["arms"].get(one[key]) for key in ("arm", "baseline"))
    return None not in (arm, baseline) and all(arm[key] == baseline[key] for key in ("stages", "options", "separate"))


def studies(folder: Path) -> Rows:
    """Return a row per study in `folder`: its report, its question, and what it found."""
    found = [["report", "question", "seeds", "verdicts"]]
    for path in sorted(folder.glob("*/study.json")):
        data = read(path)
        verdicts = [plain_verdict(one["verdict"]) for one in data["comparisons"]]
        named = [
            f"{one['verdict']}: {marked(one['task'], one)}, {one['arm']}"
            for one in data["comparisons"]
            if is_decided(one)
        ]
        counts = [f"{verdicts.count(word)} {word}" for word in ("equivalent", "undecided") if word in verdicts]
        name = path.parent.name
        found.append(
            [f"[{name}]({name}/report.md)", data["question"], str(len(data["seeds"])), "; ".join(named + counts)]
        )
    return found


def repairs(data: Record) -> Rows:
    """Return what training added to repairs, over the seeds."""
    header = [
        "damage",
        "images",
        "skill learned",
        "95 % interval over seeds",
        "called learned",
        "images (clusters) a seed",
    ]
    names = short_names([row["source"] for row in data["rows"]])
    return [
        [*header[:2], "compared with", *header[2:]],
        *(
            [
                *(row["pretext"], names[row["source"]], row["reference"], signed(row["value"])),
                ends(row),
                f"{row['num_learned']} of {row['num_seeds']}" if row["num_judged"] else "too few clusters to say",
                f"{row['n']:,} ({row['num_clusters']:,})",
            ]
            for row in data["rows"]
        ),
    ]


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """Return each source's name in a table: its path without the folders that all paths have in common."""
    paths = {source: rest for source in sources if "/" in (rest := source.partition("/")[2])}
    common = posixpath.commonpath(list(paths.values())) if len(set(paths.values())) > 1 else "."
    return {source: posixpath.relpath(paths[source], common) if source in paths else source for source in sources}


def peers_search(data: Record) -> Rows:
    """Return every setting that was tried, best first, and the floors; the chosen ones are bold."""
    tasks = list(data["rows"][0]["scores"])
    found = [["setting", *tasks, "mean", "images seen", "share of time for data"]]
    for row in data["rows"]:
        name = f"**{row['arm']}**" if row["arm"] in data["chosen"].values() else row["arm"]
        time = f"{100 * row['data_share']:.0f} %" if "data_share" in row else ""
        found.append([name, *_with_mean(row["scores"], tasks), f"{row['images_seen']:,}", time])
    return [*found, *([name, *_with_mean(scores, tasks), "", ""] for name, scores in data["floors"].items())]


def peers_scores(data: Record) -> Rows:
    """Return the test scores of the chosen settings and of the floors, in each way of judging."""
    tasks = list(next(iter(next(iter(data["scores"].values()))["probe"].values())))
    return [
        ["seconds of two cores", "judged by", "features", *tasks],
        *(
            [budget, how, name, *(interval(scores[task]) for task in tasks)]
            for budget, by_how in data["scores"].items()
            for how, by_name in by_how.items()
            for name, scores in by_name.items()
        ),
    ]


def peers_judge(data: Record) -> Rows:
    """Return the comparisons of our chosen setting with the peer's, on test images, after Holm's correction.

    Last come the means over the tasks, which are no part of the correction.
    """
    header = ["seconds of two cores", "judged by", "task", "difference", "after Holm", "detectable", "verdict"]
    words = {"helps": "ours is better", "hurts": "the peer's is better"}
    return [
        header,
        *(
            [
                *(row["budget"], row["how"], row["task"], difference(row["difference"], bold=is_decided(row))),
                ends(row["difference_holm"]),
                "" if row["minimum_detectable"] is None else share(row["minimum_detectable"]),
                words.get(row["verdict"], row["verdict"]),
            ]
            for row in data["comparisons"]
        ),
        *([row["budget"], row["how"], "mean", difference(row["difference"]), "", "", ""] for row in data["means"]),
    ]


def rendered(data: Record) -> Rows:
    """Return how well a linear model and a supervised network tell the classes of the rendered sets."""
    found = [["set", "images", "majority", "linear model on pixels", "resnet18, supervised", "steps of 64"]]
    for name, row in data.items():
        cells = [interval(row[model]) for model in ("pixels", "resnet18")]
        majority = share(row["pixels"]["majority"])
        found.append([f"`rendered/{name}`", f"{row['images']:,}", majority, *cells, str(row["steps"])])
    return found


def decoders(data: Record) -> Rows:
    """Return each decoder's skill on photographs and the features' accuracy: mean ± standard deviation over seeds."""
    rows = data["rows"]
    source = next(iter(rows[0]["skill_by_source"]))
    pretexts, tasks = list(rows[0]["skill"]), list(rows[0]["probe"])
    found = [["decoder", *(f"{name}, {source}" for name in pretexts), *(f"features, {task}" for task in tasks)]]
    for arm in data["seconds_per_step"]:
        own = [row for row in rows if row["arm"] == arm]
        columns = [[row["skill_by_source"][source].get(name, np.nan) for row in own] for name in pretexts]
        columns += [[row["probe"][task] for row in own] for task in tasks]
        found.append([arm, *(_spread(values) for values in columns)])
    for name, scores in data.get("baselines", {}).items():
        found.append([name, *("" for _ in pretexts), *(share(scores[task]) for task in tasks)])
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def share(value: float) -> str:
    """Return a value in [0, 1] as .123."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{round(value, 3) + 0.0:.3f}")


def signed(value: float) -> str:
    """Return a difference as +.123; one that rounds to 0 has no sign."""
    rounded = round(value, 3)
    return ("" if rounded == 0 else "-" if rounded < 0 else "+") + share(abs(value))


def difference(one: Record, *, bold: bool = False) -> str:
    """Return a difference with its interval, if it has one."""
    text = signed(one["value"]) + (f" ({ends(one)})" if one["low"] is not None else "")
    return f"**{text}**" if bold else text


def ends(one: Record) -> str:
    """Return the ends of a difference's interval; nothing if it has none."""
    return "" if one["low"] is None else f"{signed(one['low'])} to {signed(one['high'])}"


def interval(score: Record) -> str:
    """Return a score with its interval, if it has one."""
    if score["low"] is None:
        return share(score["value"])
    return f"{share(score['value'])} ({share(score['low'])} to {share(score['high'])})"


def is_decided(one: Record) -> bool:
    """Return True if a comparison helps or hurts, be it for one pretraining only."""
    return plain_verdict(one["verdict"]) in ("helps", "hurts")


def _with_mean(scores: Mapping[str, float], tasks: Sequence[str]) -> list[str]:
    values = [scores[task] for task in tasks]
    return [share(value) for value in (*values, float(np.mean(values)))]


def _wins(row: Record) -> str:
    """Return the probability of improvement in %, with its interval if it has one."""
    found = row.get("probability_of_improvement")
    if found is None:
        return ""
    low_high = "" if found["low"] is None else f" ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
    return f"{100 * found['value']:.0f} %{low_high}"


def _labels(row: Record) -> str:
    """Return the number of labelled images for training, plus that for validation where it is recorded."""
    counts = [row.get("num_labelled"), row.get("num_validation")]
    return " + ".join(f"{count:,}" for count in counts if count is not None)


def _spread(values: Sequence[float]) -> str:
    return (
        f"{share(float(np.mean(values)))} ± {share(float(np.std(values, ddof=1)))}"
        if len(values) > 1
        else share(values[0])
    )

"""The tables of scores on held-out images: studies, repairs, comparisons with peers, drawn sets, decoders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Record = Mapping[str, Any]
Rows = list[list[str]]  # the first is the header


def study(data: Record) -> Rows:
    """Return every comparison of a study, with the verdict after Holm's correction; A/A controls are marked."""
    header = ["task", "labels", "arm", "against", "score", "baseline", "difference", "could have seen", "verdict"]
    labels = {(row["task"], row["fraction"], row["arm"]): _labels(row) for row in data["scores"]}
    return [
        header,
        *(
            [
                one["task"],
                labels.get((one["task"], one["fraction"], one["arm"]), ""),
                f"{one['arm']} (A/A control)" if is_control(data, one) else one["arm"],
                one["baseline"],
                *(share(one[key]["value"]) for key in ("arm_score", "baseline_score")),
                difference(one["difference"], bold=one["verdict"] in ("helps", "hurts")),
                "" if one["minimum_detectable"] is None else share(one["minimum_detectable"]),
                one["verdict"],
            ]
            for one in data["comparisons"]
        ),
    ]


def is_control(data: Record, one: Record) -> bool:
    """Return True if both arms of a comparison are one recipe, which differs in the seeds only."""
    arm, baseline = (data["arms"].get(one[key]) for key in ("arm", "baseline"))
    return None not in (arm, baseline) and all(arm[key] == baseline[key] for key in ("stages", "options", "separate"))


def studies(folder: Path) -> Rows:
    """Return a row per study in `folder`: its report, its question, and what it found."""
    found = [["report", "question", "seeds", "verdicts"]]
    for path in sorted(folder.glob("*/study.json")):
        data = read(path)
        verdicts = [one["verdict"] for one in data["comparisons"]]
        named = [
            f"{o['verdict']}: {o['task']}, {o['arm']}"
            for o in data["comparisons"]
            if o["verdict"] in ("helps", "hurts")
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
    return [
        [*header[:2], "compared with", *header[2:]],
        *(
            [
                *(row["pretext"], row["source"], row["reference"], signed(row["value"])),
                "" if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}",
                f"{row['num_learned']} of {row['num_seeds']}",
                f"{row['n']:,} ({row['num_clusters']:,})",
            ]
            for row in data["rows"]
        ),
    ]


def peers_judge(data: Record) -> Rows:
    """Return the comparisons with the peer's best recipe, on test images."""
    header = ["task", "judged by", "peer", "ours", "difference", "verdict"]
    return [
        header,
        *(
            [
                *(row["task"], row["how"], share(row["baseline_score"]["value"]), share(row["arm_score"]["value"])),
                difference(row["difference"], bold=row["verdict"] in ("helps", "hurts")),
                {"helps": "ours is better", "hurts": "the peer is better"}.get(row["verdict"], row["verdict"]),
            ]
            for row in data["comparisons"]
        ),
    ]


def rendered(data: Record) -> Rows:
    """Return how well a linear model and a supervised network tell the classes of the drawn sets."""
    found = [["set", "chance", "linear model on pixels", "resnet18, supervised"]]
    for name, row in data.items():
        cells = [interval(row[model]) for model in ("pixels", "resnet18")]
        found.append([f"`rendered/{name}`", share(row["pixels"]["chance"]), *cells])
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
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def share(value: float) -> str:
    """Return a value in [0, 1] as .123."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def signed(value: float) -> str:
    """Return a difference as +.123."""
    return ("-" if round(value, 3) < 0 else "+") + share(abs(value))


def difference(one: Record, *, bold: bool = False) -> str:
    """Return a difference with its interval, if it has one."""
    ends = "" if one["low"] is None else f" ({signed(one['low'])} to {signed(one['high'])})"
    text = signed(one["value"]) + ends
    return f"**{text}**" if bold else text


def interval(score: Record) -> str:
    """Return a score with its interval, if it has one."""
    ends = "" if score["low"] is None else f" ({share(score['low'])} to {share(score['high'])})"
    return share(score["value"]) + ends


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

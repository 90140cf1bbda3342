"""The tables of recipes that were compared on validation images, and of probes of pretrained weights."""
# S seeds, n validation images of all tasks

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_mtl.config.yaml_files import read_config
from vision_mtl.evaluation.crossed import spread

DRAWS = 5  # subsets of a tenth of the labels that a probe is averaged over
JUDGED = {"probe_1": "probe, all labels", "probe_0.1": "probe, 10 %", "finetune": "fine-tuned, 10 %"}
Record = Mapping[str, Any]
Rows = list[list[str]]


def setting_names(path: Path) -> list[str]:
    """Return the names of a list's settings; the others are compared with the first."""
    return [str(name) for name in read_config(path)["settings"]]


def trials(data: Record, name: str, names: Sequence[str]) -> Rows:
    """Return one row for each setting `names` of the list `name` and way of judging, the best mean first.

    Scores are means over seeds; the difference is to the first of `names`.
    """
    settings: dict[str, list[Record]] = {}
    for key, row in data.items():
        if key.startswith(f"{name}/") and row["setting"] in names:
            settings.setdefault(row["setting"], []).append(row)
    judgements = (row[judged] for own in settings.values() for row in own for judged in JUDGED if judged in row)
    tasks = list(next(judgements, {}))
    header = ["setting", "judged by", "seeds", *tasks, "mean", "difference in points", "CPU s"]
    rows: Rows = [header]
    for judged, shown in JUDGED.items():
        judged_so = {setting: own for setting, own in settings.items() if judged in own[0]}
        for setting in sorted(judged_so, key=lambda setting: -_mean(judged_so[setting], judged)):
            own = judged_so[setting]
            scores = [float(np.mean([row[judged][task]["accuracy"] for row in own])) for task in tasks]
            cells = [f"{score:.3f}" for score in (*scores, float(np.mean(scores)))]
            apart = "reference" if setting == names[0] else difference(own, judged_so.get(names[0], []), judged)
            rows.append([setting, shown, str(len(own)), *cells, apart, f"{np.mean([cpu_seconds(r) for r in own]):.0f}"])
    return rows


def mean_score(row: Record, judged: str) -> float:
    """The mean over tasks of the accuracy."""
    return float(np.mean([score["accuracy"] for score in row[judged].values()]))


def cpu_seconds(row: Record) -> float:
    """Processor seconds of training."""
    return float(row["seconds"]["cpu"] + (row["judging_cpu_seconds"] if "finetune" in row else 0))


def difference(own: Sequence[Record], reference: Sequence[Record], judged: str) -> str:
    """The mean over tasks of the paired difference to the reference, in points, with its 95 % interval."""
    other = {row["seed"]: row for row in reference if judged in row}
    pairs = [(row, other[row["seed"]]) for row in own if row["seed"] in other]
    if not pairs:
        return ""
    values = np.array([hits(row, judged) - hits(base, judged) for row, base in pairs])  # (S, n)
    if len(values) == 1:  # over images alone: it does not say how another seed would come out
        error = float(100 * values[0].std(ddof=1) / np.sqrt(values.shape[1]))
        return f"{100 * values.mean():+.1f} ± {1.96 * error:.1f}, one seed"
    found = spread(100 * values, np.arange(values.shape[1]))
    low, high = found.interval()
    return f"{float(found.mean):+.1f} ({float(low):.1f} to {float(high):.1f})"


def hits(row: Record, judged: str) -> np.ndarray:
    """(n,) hits of all tasks' validation images, weighted so that their mean is the mean over tasks."""
    found = [np.array([int(digit) for digit in score["hits"]]) for score in row[judged].values()]
    found = [own / (DRAWS if judged == "probe_0.1" else 1) for own in found]
    total = sum(map(len, found))
    return np.concatenate([own * total / (len(found) * len(own)) for own in found])


def weights(data: Record) -> Rows:
    """Return one row for each backbone, weights and input size, with a column for each task, all labels and a tenth."""
    tasks = list(dict.fromkeys(row["task"] for row in data["rows"]))
    marked = [f"{task} †" if task in data["related"] else task for task in tasks]
    groups: dict[tuple[str, ...], dict[str, Record]] = {}
    for row in data["rows"]:
        key = (row["backbone"], row["weights"], f"{row['input_size'] or 64} px", f"{100 * float(row['fraction']):g} %")
        groups.setdefault(key, {})[row["task"]] = row
    cells = [[*key, *(_score(found[task]) for task in tasks)] for key, found in groups.items()]
    return [["backbone", "weights", "images", "labels", *marked], *cells]


def _score(row: Record) -> str:
    return f"{row['value']:.3f}" + ("" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})")


def _mean(rows: Sequence[Record], judged: str) -> float:
    return float(np.mean([mean_score(row, judged) for row in rows]))

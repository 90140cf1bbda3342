"""Text of a result, printed at the end of a run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vision_mtl.core.text import short_sources
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.discovery.kinds import learned_text
from vision_mtl.evaluation.jackknife import MIN_CLUSTERS
from vision_mtl.evaluation.power import NOTHING_SHOWN
from vision_mtl.inference.prediction_summary import summary_text
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.recipes.learned_text import feature_sentence, feature_table, repair_sentence, score_cell
from vision_mtl.study.independence import MARK, marked
from vision_mtl.study.number_format import Unit, format_count
from vision_mtl.study.verdict_text import is_beyond

PROBE_COLUMNS = {  # method -> column title
    "linear": "linear probe",
    "head": "saved head",
    "knn": "kNN",
    "linear_random_init": "random init",
    "pixels": "pixels",
    "hog_knn": "HOG + kNN",
    "chance": "chance",
    "majority": "majority",
}
BASELINES = ("majority", "chance")
BASELINE_NOTE = (
    "majority: always the class that most training labels have (numbers: their median); "
    "chance: the same predictions, shuffled"
)
LABELS = "labels of training + validation images"
KINDS = ("learnable", "trivial", "hopeless")
WIDTH = 120  # characters of a table, whatever the terminal: tables go to files too


def result_text(result: dict[str, Any], task_sources: Mapping[str, str] | None = None) -> str:
    """Return the scores of `result.json` as lines of text.

    `task_sources` maps tasks to their sources, whose names are shortened by `short_sources`.
    """
    metrics = _with_short_sources(result.get("metrics", {}), task_sources or {})
    lines = [*_features_text(metrics), *_tasks_text(metrics), *_consistency_text(metrics)]
    lines += [*_skill_text(metrics), *_kinds_text(metrics)]
    lines += _few_clusters_text(metrics)
    lines += _comparisons_text(metrics)
    lines += _online_text(metrics)
    if (online := metrics.get("online")) and not metrics.get("features"):
        lines.append("kNN on frozen features of validation images (the majority's accuracy in brackets):")
        majority = {task: found.get("majority", found["chance"]) for task, found in online.items()}  # chance: older
        lines += [f"  {task:<18}{found['knn']:.3f}  ({majority[task]:.3f})" for task, found in online.items()]
    if "answers" in metrics:  # of predict
        lines += _predictions_text(metrics)
    if "differences" in metrics:  # of export
        lines += _exports_text(metrics)
    if result.get("images_seen"):
        lines.append(
            f"{result['images_seen']:,} images in {result['seconds']:.0f} s of training, "
            f"{result['images_per_second']:.0f} a second"
        )
    return "\n".join(lines)


def _features_text(metrics: dict[str, Any]) -> list[str]:
    """Return what training added to the features and the repairs: sentences, and a row for each task."""
    features, learned = metrics.get("features") or {}, metrics.get("skill_learned_by_source") or {}
    repaired = "" if "kinds" in metrics else repair_sentence(_repairs_only(learned))
    lines = [line for line in (feature_sentence(features), repaired) if line]
    if features:
        count = max(own["num_train"] for own in features.values())
        head = f"{_probe_metric(features)} of a linear probe of frozen features on validation images"
        fitted = f"95 % interval; fitted to at most {count:,} training images"
        lines += [f"{head} ({fitted}):", as_text(feature_table(features))]
    return lines


def _probe_metric(features: Mapping[str, Mapping[str, Any]]) -> str:
    metrics = {own["metric"] for own in features.values()}
    return metrics.pop() if len(metrics) == 1 else "score"


def _repairs_only(by_source: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return source -> pretext -> score of the pretexts that repair pixels, and of a plugin's that is not loaded."""
    known = PRETEXTS.names()
    others = {n for scores in by_source.values() for n in scores if n in known and PRETEXTS.get(n).output != "pixels"}
    return {source: {n: s for n, s in scores.items() if n not in others} for source, scores in by_source.items()}


def _with_short_sources(metrics: dict[str, Any], task_sources: Mapping[str, str]) -> dict[str, Any]:
    """Return the metrics with short names of the sources."""
    found = dict(metrics)
    for key in ("skill_by_source", "skill_learned_by_source"):
        if key in metrics:
            names = short_sources([*metrics[key], "all"], task_sources)  # "all" is the row of all sources
            found[key] = {names[source]: scores for source, scores in metrics[key].items()}
    return found


def _skill_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of what training added, with a row per source and pretext."""
    if not (learned := metrics.get("skill_learned_by_source")):
        return _older_skill_text(metrics)
    classic = {} if "kinds" in metrics else {**metrics["skill_by_source"], "all": metrics["skill"]}  # not in discover
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("images", overflow="fold")
    table.add_column("pretext", no_wrap=True)
    for head in ("skill_learned", "", "best rule", *(["classic"] if classic else []), "clusters"):
        table.add_column(head, justify="right", no_wrap=True)
    whole = {"all": metrics["skill_learned"]} if len(learned) > 1 else {}
    rows = {**learned, **whole}
    if any(repaired := _repairs_only(rows).values()):
        rows = dict(zip(rows, repaired, strict=True))  # the loss of other pretexts says little beside repairs
    for source, scores in rows.items():
        for name, score in scores.items():
            rule = score["reference"] if isinstance(score["reference"], str) else "by source"
            cells = [score_cell(score, with_interval=True, sign="+"), learned_text(score), rule]
            if classic:
                cells.append(score_cell(classic.get(source, {}).get(name), with_interval=False, sign="+"))
            table.add_row(source, name, *cells, f"{score['num_clusters']:,}")
    head = "what training added on held-out images (0: the best rule without it, 1: perfect; 95 % interval):"
    note = (
        "classic: skill against the classic repair alone (where nothing is repaired, the chance loss), which an "
        "untrained network may beat too"
    )
    return [head, as_text(table), *([note] if classic else [])]


def _older_skill_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of skill of a run from before `skill_learned`."""
    if not (skill := metrics.get("skill_by_source")):
        return []
    table = Table("images", "pretext", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("skill", "instances", "clusters"):
        table.add_column(head, justify="right", no_wrap=True)
    for source, scores in {**skill, **({"all": metrics["skill"]} if len(skill) > 1 else {})}.items():
        for name, score in scores.items():
            counts = [f"{score[key]:,}" for key in ("n", "num_clusters")]
            table.add_row(source, name, score_cell(score, with_interval=True, sign="+"), *counts)
    zero = "one rule for all sources" if "kinds" in metrics else "the classic repair"
    head = f"an older run: skill on held-out images (0: {zero}, 1: perfect; 95 % interval) does not show learning:"
    return [head, as_text(table)]


def _few_clusters_text(metrics: dict[str, Any]) -> list[str]:
    """Return a line about the sources whose skill has no interval, and what to do."""
    few = {
        source: min(score["num_clusters"] for score in scores.values())
        for source, scores in metrics.get("skill_by_source", {}).items()
        if any(score["low"] is None and score["num_clusters"] < MIN_CLUSTERS for score in scores.values())
    }
    if not few:
        return []
    named = ", ".join(f"{source} ({count})" for source, count in few.items())
    return [
        f"no interval with fewer than {MIN_CLUSTERS} clusters (photographs, people, other groups): {named}. Give more "
        "photographs as further sources of --data.unlabelled, such as images/PATH."
    ]


def _kinds_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of damages by kind with a row per pretext and scale."""
    if "kinds" not in metrics:
        return []
    table = Table("pretext", "scale", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("skill_learned", *KINDS):
        table.add_column(head, justify="right", no_wrap=True)
    for pretext, scales in metrics["skill_by_scale"].items():
        for scale, score in scales.items():
            kinds = [v["kind"] for name, v in metrics["kinds"][pretext].items() if name.partition("/")[0] == scale]
            counts = [str(kinds.count(kind)) for kind in KINDS]
            table.add_row(pretext, scale, score_cell(score, with_interval=True, sign="+"), *counts)
    return ["number of damages of each kind, over all images:", as_text(table)]


def _comparisons_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of a study's comparisons, and where the report is."""
    if "comparisons" not in metrics:
        return []
    table = Table("task", "labels", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm - baseline", no_wrap=True)
    for head in ("difference", "detectable", "verdict"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in metrics["comparisons"]:
        smallest = row["minimum_detectable"]
        detectable = "" if smallest is None else "none" if is_beyond(row) else f"{smallest:.3f}"
        cells = [score_cell(row["difference"], with_interval=True, sign="+"), detectable]
        name = f"{row['arm']} - {row['baseline']}"
        table.add_row(row["task"], f"{row['fraction']:.4g}", name, *cells, marked(row["verdict"], row))
    shown = as_text(table) if metrics["comparisons"] else "one arm: nothing to compare"
    head = "paired differences on test images with 95 % intervals, verdicts after Holm's correction:"
    lines = [head, shown]
    if any(is_beyond(row) for row in metrics["comparisons"]):
        lines.append(f"none: {NOTHING_SHOWN}")
    if any(not row.get("independent", True) for row in metrics["comparisons"]):
        lines.append(f"{MARK} not independent: an arm's weights or teacher may know the task; corrected apart.")
    for row in metrics.get("improvements", []):
        found = Unit(100, 0, "%").score(row["probability_of_improvement"])
        at = f"{row['arm']} - {row['baseline']} at {row['fraction']:.4g} of the labels"
        over = format_count(len(row["tasks"]), "task")
        lines.append(f"probability of improvement over {over}, {at}: {found} %")
    return [*lines, "the report is report.html, or report.md as text"]


def _online_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of how often a bandit drew each damage."""
    if "online_weights" not in metrics:
        return []
    table = Table("pretext", "damage", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("mean weight", "last weight", "skill"):
        table.add_column(head, justify="right", no_wrap=True)
    skill = {(row["pretext"], row["damage"]): row["skill"] for row in metrics["skill_over_time"]}  # the latest
    for pretext, weights in metrics["online_weights"].items():
        for damage, weight in weights.items():
            mean = metrics["online_weights_mean"][pretext][damage]
            table.add_row(pretext, damage, f"{mean:.2f}", f"{weight:.2f}", f"{skill[pretext, damage]:+.3f}")
    head = "weights relative to the mixture's; skill on validation images (0: untrained, 1: perfect):"
    return [head, as_text(table)]


def _tasks_text(metrics: dict[str, Any]) -> list[str]:
    """Return a table of scores with a row per task."""
    if not metrics.get("tasks"):
        return []
    if "fractions" in metrics:  # of a probe
        return [f"frozen features, on test images, linear probe with 95 % interval; {LABELS}:", _probe_table(metrics)]
    lines = [f"on test images, with 95 % intervals; {LABELS}:", _task_table(metrics), *_majority_text(metrics)]
    if changed := metrics.get("change"):
        lines.append("change of the old tasks, after minus before:")
        lines += [f"  {task:<18}{score_cell(score, with_interval=True, sign='+')}" for task, score in changed.items()]
    return lines


def _consistency_text(metrics: dict[str, Any]) -> list[str]:
    """Return a line for each task that consistency trained: how many pseudo-labels, and how many are right."""
    if not (found := metrics.get("consistency")):
        return []
    lines = ["consistency: confident predictions on unlabelled images; of those on validation images, right ones:"]
    for task, scores in found.items():
        accuracy = scores.get("pseudo_accuracy")
        right = "none is confident" if accuracy is None else f"{accuracy['value']:.3f} of {accuracy['n']:,}"
        lines.append(f"  {task:<18}{scores['share']['value']:.3f}  {right}")
    return lines


def _task_table(metrics: dict[str, Any]) -> str:
    """Return a row per task: its headline metric, the baselines, and its single-task network; old tasks come last."""
    rows = {**metrics["tasks"], **metrics.get("old_tasks", {})}
    baselines = [name for name in BASELINES if any(name in row for row in rows.values())]
    table = Table("task", "metric", box=SIMPLE_HEAD, pad_edge=False)
    heads = ["labels", "score", *baselines] + (["single-task", "shared - single"] if "transfer" in metrics else [])
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for task, row in rows.items():
        metric = label_kind(row["kind"]).headline
        cells = [label_counts(row), score_cell(row.get(metric), with_interval=True)]
        cells += [score_cell(row.get(name, {}).get(metric), with_interval=False) for name in baselines]
        if "transfer" in metrics:
            alone, gain = metrics["single"][task].get(metric), metrics["transfer"][task]
            cells += [score_cell(alone, with_interval=False), score_cell(gain, with_interval=True, sign="+")]
        table.add_row(task, metric, *cells)
    return as_text(table)


def _majority_text(metrics: dict[str, Any]) -> list[str]:
    """Return which tasks are predicted better than by the majority, and what the baselines are; older runs: nothing."""
    rows = {**metrics["tasks"], **metrics.get("old_tasks", {})}
    gains = {task: row["minus_majority"] for task, row in rows.items() if "minus_majority" in row}
    if not gains:
        return []
    better = [task for task, gain in gains.items() if gain["low"] is not None and gain["low"] > 0]
    others = [task for task in gains if task not in better]
    parts = [f"better than the majority: {', '.join(better) or 'no task'}"]
    return ["; ".join(parts + ([f"not shown: {', '.join(others)}"] if others else [])), BASELINE_NOTE]


def _probe_table(metrics: dict[str, Any]) -> str:
    """Return a row per task and label fraction; the metric is accuracy unless it follows the task's name."""
    found = [*metrics.get("fractions", {}).values(), {"tasks": metrics["tasks"]}]
    methods = [m for m in PROBE_COLUMNS if any(m in row for part in found for row in part["tasks"].values())]
    table = Table("task", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("labels", *(PROBE_COLUMNS[m] for m in methods)):
        table.add_column(head, justify="right", no_wrap=True)
    for task in metrics["tasks"]:
        for part in found:
            row = part["tasks"][task]
            headline = label_kind(row["kind"]).headline
            metric = headline if headline in row["linear"] else "accuracy"
            name = task if metric == "accuracy" else f"{task} ({metric})"
            cells = [score_cell(row.get(m, {}).get(metric), with_interval=m == "linear") for m in methods]
            table.add_row(name, label_counts(row), *cells)
    return as_text(table)


def label_counts(row: dict[str, Any]) -> str:
    """Return the numbers of training and validation labels, as far as the result has them."""
    known = [row.get("num_labelled"), row.get("num_validation")]
    return " + ".join(f"{count:,}" for count in known if count is not None)


def as_text(table: Table, width: int = WIDTH) -> str:
    """Return a rich table as lines of at most `width` characters, without colours."""
    text = io.StringIO()
    Console(file=text, width=width, markup=False, emoji=False).print(table)  # names are not markup
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def _predictions_text(metrics: dict[str, Any]) -> list[str]:
    """Return the files of predictions, and a line for each head: its classes with their shares, or its numbers."""
    lines = [f"{format_count(metrics['num_images'], 'image')} predicted: {', '.join(metrics['files'])}"]
    if "summaries" in metrics:
        return lines + [f"  {task:<18}{summary_text(summary)}" for task, summary in metrics["summaries"].items()]
    for task, counts in metrics["answers"].items():  # of an older run
        lines.append(f"  {task:<18}{', '.join(f'{name} {count:,}' for name, count in counts.items())}")
    return lines


def _exports_text(metrics: dict[str, Any]) -> list[str]:
    """Return every exported file with its size, and the largest difference of its outputs from the run's."""
    lines = [f"  {name:<34}{size / 1e6:9.2f} MB" for name, size in metrics["files"].items()]
    differences = ", ".join(f"{name} {value:.1e}" for name, value in metrics["differences"].items())
    lines += [f"largest difference from the run's outputs: {differences}"]
    check = metrics.get("from_files")
    if check and check["images"]:
        differing = check["labels_differing"]
        labels = "" if differing is None else f"{differing} labels differ from predict, "
        largest = f"largest difference {check['largest_difference']:.1e}"
        lines.append(f"from the bytes of {check['images']} image files: {labels}{largest}")
    return ["exported:", *lines]

"""Outputs of a probe other than its scores: tables by class, predictions for test images, and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import Run
from vision_mtl.core.text import file_stem
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.classes import class_rows, confusion_matrix, csv_text
from vision_mtl.evaluation.embedding import embed
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.evaluation.fractions import LabelBudget
from vision_mtl.evaluation.instance_scores import InstanceScores, write_instances
from vision_mtl.evaluation.probing import ProbePrediction, ProbeTask
from vision_mtl.recipes.result_text import PROBE_COLUMNS
from vision_mtl.viz.probes import confusion_figure, embedding_figure, scores_figure, values_figure
from vision_mtl.viz.style import save_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# in the order of every table
METHODS = ("linear", "knn", "linear_random_init", "pixels", "hog_knn", "chance", "majority")
Predictions = Mapping[str, Mapping[str, ProbePrediction]]  # task -> method


def write_tables(run: Run, pool: Pool, tasks: Mapping[str, ProbeTask], predictions: Predictions) -> None:
    """Write `tables/TASK.csv`, a row per class, for the linear probe on all labels."""
    for name, task in tasks.items():
        if label_kind(task.kind).one_class and run.is_main:
            rows = class_rows(confusion(task, predictions[name]["linear"]), pool.class_names[name])
            atomic_write_text(run.folder / "tables" / f"{file_stem(name)}.csv", csv_text(rows))


def write_test_instances(
    run: Run,
    pool: Pool,
    indices: torch.Tensor,
    tasks: Mapping[str, ProbeTask],
    budgets: Mapping[str, Mapping[str, LabelBudget]],
    predictions: Mapping[str, Mapping[str, Mapping[str, ProbePrediction]]],
) -> None:
    """Write `test_instances.parquet`: every method's prediction for each test image of `indices` (n,), by fraction.

    `predictions` maps a task to fractions, and these to methods.
    """
    if run.is_main:
        scores = [
            _instance_scores(pool, name, method, budget.train.requested, indices, tasks[name], prediction)
            for name, found in predictions.items()
            for fraction, budget in budgets[name].items()
            for method, prediction in found[fraction].items()
        ]
        write_instances(run.folder, pool, scores)


def _instance_scores(
    pool: Pool,
    name: str,
    method: str,
    fraction: float,
    indices: torch.Tensor,
    task: ProbeTask,
    found: ProbePrediction,
) -> InstanceScores:
    kind, true = label_kind(task.kind), task.values[task.test]
    classes: dict[str, Any] = {"true": true, "said": kind.decide(found.prediction)} if kind.one_class else {}
    columns = kind.instance_columns(found.prediction, true, pool.class_names[name])
    rows, values = indices[task.test].numpy(), kind.image_values(found.prediction, true)
    return InstanceScores(name, method, fraction, rows, values, **classes, columns=columns)


def write_figures(
    run: Run,
    pool: Pool,
    tasks: Mapping[str, ProbeTask],
    predictions: Predictions,
    features: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
    embedding_images: int,
) -> None:
    """Draw the scores, and for each task a confusion matrix and a map of at most `embedding_images` test images.

    `features` maps a task to features (n, D), which place its images on the map.
    """
    if not run.is_main:
        return
    figures = score_figures(metrics["tasks"])
    for name, task in tasks.items():
        if label_kind(task.kind).one_class:
            counts = confusion(task, predictions[name]["linear"])
            accuracy = metrics["tasks"][name]["linear"]["accuracy"]["value"]
            title = f"{name}: linear probe, accuracy {accuracy:.3f} on {len(task.test):,} test images"
            figures[f"confusion_{name}"] = confusion_figure(counts, pool.class_names[name], title)
        figures[f"embedding_{name}"] = feature_map(name, task, pool.class_names[name], features[name], embedding_images)
    for name, figure in figures.items():
        save_chart(figure, run.figures, file_stem(name))


def score_figures(found: Mapping[str, Any]) -> dict[str, Figure | None]:
    """Return a figure per metric; absolute errors, whose units differ between tasks, get a figure per task."""
    groups: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, own in found.items():
        kind = label_kind(own["kind"])
        metric = kind.headline
        figure = f"scores_{metric}" if kind.has_classes else f"scores_{name}"
        rows = {PROBE_COLUMNS[m]: own[m][metric] for m in METHODS if metric in own.get(m, {})}
        groups.setdefault(figure, (metric, {}))[1][name] = rows
    return {figure: scores_figure(rows, metric) for figure, (metric, rows) in groups.items()}


def feature_map(name: str, task: ProbeTask, class_names: list[str], features: np.ndarray, count: int) -> Figure | None:
    """Return a map of `count` test images by t-SNE of their features (n, D), coloured by label.

    None where t-SNE is not possible, or an image has several labels.
    """
    rows = spread_evenly(torch.from_numpy(task.test), max(count, 0)).numpy()
    kind = label_kind(task.kind)
    if (kind.has_classes and not kind.one_class) or (points := embed(features[rows])) is None:
        return None
    title = f"{name}: {len(rows):,} test images by their features (t-SNE)"
    if not kind.has_classes:
        return values_figure(points, task.values[rows], title, name)
    return embedding_figure(points, task.values[rows], class_names, title)


def confusion(task: ProbeTask, found: ProbePrediction) -> np.ndarray:
    """Return the counts (K, K) of test images by true class (rows) and predicted class (columns)."""
    return confusion_matrix(label_kind(task.kind).decide(found.prediction), task.values[task.test], task.num_outputs)

"""Outputs of the stages that train tasks: scores by task, predictions for test images, figures, tables by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import Run
from vision_mtl.core.text import file_stem
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.baselines import baseline_metrics
from vision_mtl.evaluation.classes import class_rows, confusion_matrix, csv_text
from vision_mtl.evaluation.instance_scores import InstanceScores, write_instances
from vision_mtl.evaluation.predictions import TaskPredictions, instance_values, predict_split
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.labels import LabelledTasks
from vision_mtl.recipes.supervised import TaskTrainer, Validation, calibrate, score_predictions
from vision_mtl.training.balancing.conflicts import cosines_over_steps
from vision_mtl.training.best import ALL
from vision_mtl.viz.conflicts import conflicts_figure
from vision_mtl.viz.curves import curves_figure
from vision_mtl.viz.probes import confusion_figure, scores_figure
from vision_mtl.viz.style import save_chart

METHODS = {"shared": "tasks", "single-task": "single"}  # name in the figure -> key of the metrics


def run_metrics(
    model: SharedModel,
    labelled: LabelledTasks,
    found: Mapping[str, TaskPredictions],
    validation: Validation,
    trainer: TaskTrainer,
) -> dict[str, Any]:
    """Return `tasks`, and `validation`: the validation score and the step of the kept weights."""
    chosen = validation.best.scores.get(ALL)
    return {
        "tasks": task_metrics(model, labelled, found, validation, trainer),
        **({"validation": {"score": chosen["score"], "step": int(chosen["step"])}} if chosen else {}),
    }


def task_metrics(
    model: SharedModel,
    labelled: LabelledTasks,
    found: Mapping[str, TaskPredictions],
    validation: Validation,
    trainer: TaskTrainer,
) -> dict[str, dict[str, Any]]:
    """Return each task's test scores, the baselines, its number of labels, and the scores of its own best weights."""
    epochs = validation.epochs()
    scores = score_predictions(model, labelled.pool, found)
    own = best_epochs(model, labelled, validation, trainer)
    return {
        task: {
            "kind": found[task].target.kind,
            **scores[task],
            **baseline_metrics(found[task], labelled.train[task], labelled.pool.cluster[found[task].indices.numpy()]),
            **labelled.records[task],
            "epochs": round(epochs[task], 3),
            **({"best_epoch": own[task]} if task in own else {}),
        }
        for task in found
    }


def best_epochs(
    model: SharedModel, labelled: LabelledTasks, validation: Validation, trainer: TaskTrainer
) -> dict[str, dict[str, Any]]:
    """Return each task's test scores with the weights of its own best evaluation, and that evaluation's step.

    The model's weights are restored afterwards.
    """
    best, kept, found = validation.best, {k: v.clone() for k, v in model.state_dict().items()}, {}
    for task in labelled.tasks:
        if task in best.weights:
            best.load(model, task)
            calibrate(model, labelled.pool, [task], trainer)
            own = predict_split(model, labelled.pool, "test", [task], trainer.accelerator.autocast)
            found[task] = {"step": int(best.scores[task]["step"]), **score_predictions(model, labelled.pool, own)[task]}
    model.load_state_dict(kept)
    return found


def write_test_instances(
    run: Run, model: SharedModel, labelled: LabelledTasks, found: Mapping[str, TaskPredictions]
) -> None:
    """Write `test_instances.parquet`: every prediction of `model` for a test image, and its label."""
    if run.is_main:
        scores = []
        for task, own in found.items():
            numbers = own.probabilities(model, task).numpy()
            scores.append(_instance_scores(task, labelled.records[task]["requested"], own, numbers))
        write_instances(run.folder, labelled.pool, scores)


def _instance_scores(task: str, fraction: float, found: TaskPredictions, numbers: np.ndarray) -> InstanceScores:
    classes: dict[str, Any] = {}
    if found.kind.one_class:
        classes = {"true": found.values, "said": found.decisions()}
    columns = found.kind.instance_columns(numbers, found.values, found.target.class_names)
    values = instance_values(found)
    return InstanceScores(task, "head", fraction, found.indices.numpy(), values, **classes, columns=columns)


def write_figures(
    run: Run, model: SharedModel, pool: Pool, found: Mapping[str, TaskPredictions], metrics: Mapping[str, Any]
) -> None:
    """Draw curves, conflicts, scores and confusion matrices; write a table of classes for each task."""
    if not run.is_main:
        return
    records = run.records()
    names = list(metrics["tasks"])
    figures = {
        "curves": curves_figure(records),
        "conflicts": conflicts_figure(*cosines_over_steps(records, names), names),
        **score_figures(metrics),
    }
    for task, predictions in found.items():
        if predictions.kind.one_class:
            true = predictions.values
            classes = pool.class_names[task]
            counts = confusion_matrix(predictions.decisions(), true, len(classes))
            accuracy = metrics["tasks"][task]["accuracy"]["value"]
            title = f"{task}: accuracy {accuracy:.3f} on {len(true):,} test images"
            figures[f"confusion_{task}"] = confusion_figure(counts, classes, title)
            atomic_write_text(run.folder / "tables" / f"{file_stem(task)}.csv", csv_text(class_rows(counts, classes)))
    for name, figure in figures.items():
        save_chart(figure, run.figures, file_stem(name))


def score_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure per headline metric, with the shared network and, if trained, the single-task networks."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for task, scores in metrics["tasks"].items():
        metric = label_kind(scores["kind"]).headline
        rows = {
            method: metrics[key][task][metric]
            for method, key in METHODS.items()
            if metric in metrics.get(key, {}).get(task, {})
        }
        if rows:
            groups.setdefault(metric, {})[task] = rows
    return {f"scores_{metric}": scores_figure(rows, metric) for metric, rows in groups.items()}

"""What training added to the features: the same linear probe before and after it, on the same validation images."""
# n images of all tasks, D feature width

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import Autocast, extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.linear_probe import standardise
from vision_mtl.evaluation.probing import (
    ProbePrediction,
    ProbeTask,
    fit_probe,
    predict_constant,
    score_constant,
    score_difference,
    score_prediction,
)
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.batch_norm import copy_for_one
from vision_mtl.models.shared import SharedModel
from vision_mtl.models.weights import weights_text
from vision_mtl.recipes.initial_weights import keeps_statistics
from vision_mtl.recipes.run_warnings import measure_rank
from vision_mtl.training.progress import phase

STRENGTH = 0.1  # inverse of regularisation; on the default images both networks score best near it


def score_features(
    config: RunConfig, run: Run, model: SharedModel, start: SharedModel | None, pool: Pool, autocast: Autocast
) -> dict[str, dict[str, Any]]:
    """Return task -> the probe's scores `trained` and `untrained`, their paired `difference` and what it says.

    The probe is fitted to at most `score.probe_images` training images of each task and predicts at most
    `score.validation_images` validation images; its strength is fixed, so no image chooses anything. Empty without
    tasks that have a probe, for 0 images, and in processes that do not write. Warns of collapsed features.
    """
    tasks, indices = _open_tasks(config, pool)
    if not (run.is_main and config.score.probe_images):
        return {}
    with phase(run.speaker, "comparing features before and after training") as show:
        show(0.0, "after")
        after = _clean(model.backbone, pool, autocast)
        measure_rank(run, after, pool, "after training", autocast)
        if not tasks:
            return {}
        predictions = {"trained": _predict(after, pool, indices, tasks, autocast)}
        if start is not None:
            show(0.5, "before")
            kept = keeps_statistics(config)
            before = copy_for_one(start.backbone).eval() if kept else _clean(start.backbone, pool, autocast)
            predictions["untrained"] = _predict(before, pool, indices, tasks, autocast)
    return {
        name: _compare(
            task, {key: own[name] for key, own in predictions.items()}, pool.cluster[indices[task.test].numpy()]
        )
        | {"before": what_before(config, start)}
        for name, task in tasks.items()
    }


def what_before(config: RunConfig, start: SharedModel | None) -> str:
    """Return in words which weights the network had before training."""
    if config.start:
        return f"the run {config.start}"
    weights = None if start is None else start.backbone.weights
    return weights_text(weights) if weights else "random weights"


def _open_tasks(config: RunConfig, pool: Pool) -> tuple[dict[str, ProbeTask], Tensor]:
    """Return each task that can be compared, and the indices (n,) that its rows count; its test rows are validation."""
    rows = {}
    for name, own in config.tasks.items() if config.score.probe_images else ():
        if label_kind(own.kind).has_probe:
            train = spread_evenly(pool.indices("train", task=name), config.score.probe_images)
            held_out = pool.indices("val", task=name)
            val = spread_evenly(held_out, config.score.validation_images or len(held_out))
            if len(train) > 1 and len(val) > 1:
                rows[name] = train, val
    if not rows:
        return {}, torch.empty(0, dtype=torch.int64)
    indices = torch.cat([part for parts in rows.values() for part in parts]).unique()
    none = np.empty(0, np.int64)
    tasks = {}
    for name, (train, val) in rows.items():
        target, own_rows = pool.targets[name], (torch.searchsorted(indices, part).numpy() for part in (train, val))
        fitted, scored = own_rows
        kind, values = config.tasks[name].kind, target.values[indices.numpy()]
        tasks[name] = ProbeTask(kind, target.num_outputs, values, fitted, none, scored)
    return tasks, indices


def _clean(backbone: Backbone, pool: Pool, autocast: Autocast) -> Backbone:
    return with_clean_statistics(backbone, pool, pool.indices("train"), autocast=autocast)


def _predict(
    backbone: Backbone, pool: Pool, indices: Tensor, tasks: Mapping[str, ProbeTask], autocast: Autocast
) -> dict[str, ProbePrediction]:
    """Return each task's predictions by a linear probe of the backbone's features of the images `indices` (n,)."""
    features = extract_features(backbone, pool, indices, autocast=autocast).numpy()  # (n, D)
    found = {}
    for name, task in tasks.items():
        x = standardise(features, task.train)
        probe = fit_probe(x, task, task.train, strengths=(STRENGTH,))
        found[name] = ProbePrediction(probe.predict(x[task.test]))
    return found


def _compare(task: ProbeTask, predictions: Mapping[str, ProbePrediction], clusters: np.ndarray) -> dict[str, Any]:
    """Return the scores of both predictions, of the constant one, and the difference with its verdict."""
    metric = label_kind(task.kind).image_metric
    found: dict[str, Any] = {"metric": metric, "num_train": len(task.train)}
    found |= {key: score_prediction(task, own, clusters)[metric].to_json() for key, own in predictions.items()}
    found["majority"] = score_constant(task, predict_constant(task, task.train), clusters)[metric].to_json()
    if "untrained" in predictions:
        apart = score_difference(task, predictions["trained"], predictions["untrained"], clusters)[metric].to_json()
        found |= {"difference": apart, "verdict": _verdict(apart, label_kind(task.kind).has_classes)}
    return found


def _verdict(difference: Mapping[str, Any], higher_is_better: bool) -> str:
    """Return better, worse or undecided, by the interval of trained minus untrained."""
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == higher_is_better else "worse"

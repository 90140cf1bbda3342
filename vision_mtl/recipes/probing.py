"""The steps of a probe: frozen features, label subsets, fitted methods, scores on test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind, probed_kinds
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import extract_maps, pixel_features, with_clean_statistics
from vision_mtl.evaluation.fractions import LabelFraction, label_fraction
from vision_mtl.evaluation.linear_probe import standardise, validation_warning
from vision_mtl.evaluation.probing import (
    Key,
    ProbePrediction,
    ProbeTask,
    choose_features,
    predict_constant,
    predict_knn,
    predict_linear,
    score_task,
)
from vision_mtl.inference.restore import load_backbone
from vision_mtl.models.backbone import Backbone, is_convolutional
from vision_mtl.recipes import build
from vision_mtl.recipes.band_statistics import fit_statistics
from vision_mtl.training.options import Runtime

ALL_LABELS = "1"  # name of the fraction with all labels


def open_backbone(config: RunConfig, run: Run) -> Backbone:
    """Return the backbone to probe: a run's, timm's pretrained one or, with a warning, one with random weights.

    Raises `UserError` without a task.
    """
    if not config.tasks:
        raise UserError("probe needs a labelled task: give --tasks.NAME.source SOURCE.")
    torch.manual_seed(config.seed)
    backbone = Backbone.of(config.backbone, config.image_size)
    name = config.backbone.name
    if config.start:
        load_backbone(backbone, config.start)
        run.say(f"probing {config.start}")
    elif config.backbone.pretrained:
        run.say(f"probing timm's weights of {name}")
    else:
        run.warn(f"probing {name} with random weights: give --init_from RUN or --backbone.pretrained for others.")
    if config.data.include_test:
        run.warn("data.include_test: pretraining saw the test images, so these scores are not held out.")
    return backbone


def open_tasks(config: RunConfig, run: Run, pool: Pool) -> tuple[Tensor, dict[str, ProbeTask]]:
    """Return the indices (n,) of all tasks' labelled images, ascending, and each task with rows into them.

    Warns about kinds of label that have no probe, and raises `UserError` if no task is left.
    """
    kinds = {name: task.kind for name, task in config.tasks.items()}
    for name, kind in kinds.items():
        if not label_kind(kind).has_probe:
            run.warn(f"task {name} is left out: there is no linear probe for kind {kind}.")
    splits = {
        name: {split: pool.indices(split, task=name) for split in ("train", "val", "test")}
        for name, kind in kinds.items()
        if label_kind(kind).has_probe
    }
    if not splits:
        raise UserError(f"no task can be probed: kinds with a probe are {', '.join(probed_kinds())}.")
    indices = torch.cat([rows for found in splits.values() for rows in found.values()]).unique()
    tasks = {}
    for name, found in splits.items():
        rows = {split: torch.searchsorted(indices, own).numpy() for split, own in found.items()}
        target = pool.targets[name]
        tasks[name] = ProbeTask(kinds[name], target.num_outputs, target.values[indices.numpy()], **rows)
        if text := validation_warning(kinds[name], tasks[name].values[rows["val"]], tasks[name].num_outputs):
            run.warn(f"task {name}: {text}")
    return indices, tasks


def draw_subsets(
    config: RunConfig,
    run: Run,
    pool: Pool,
    indices: Tensor,
    tasks: Mapping[str, ProbeTask],
    fractions: list[float],
) -> dict[str, dict[str, LabelFraction]]:
    """Return task -> fraction's name -> its training images, and list them in `fractions.json`.

    Rows are those of `indices` (n,).
    """
    found: dict[str, dict[str, LabelFraction]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        numbers = indices[task.train].tolist()
        identities = [pool.identities[i] for i in numbers]
        names = pool.draw_names(indices[task.train])
        strata = label_kind(task.kind).strata(task.values[task.train])
        drawn = [label_fraction(names, strata, fraction, config.seed) for fraction in sorted({*fractions, 1.0})]
        found[name] = {f"{subset.requested:g}": subset for subset in drawn}
        for fraction, subset in found[name].items():
            if subset.warning:
                run.warn(f"task {name}: {subset.warning}")
            rows = {"indices": numbers, "identities": identities}
            kept.setdefault(fraction, {})[name] = {
                "fraction": subset.fraction,
                "num_labelled": subset.num_labelled,
                **{key: [values[row] for row in subset.rows] for key, values in rows.items()},
            }
    if run.is_main:
        atomic_write_json(run.folder / "fractions.json", kept)
    return found


def clean_maps(
    backbone: Backbone,
    *,
    pool: Pool,
    indices: Tensor,
    poolings: Sequence[str],
    runtime: Runtime,
    accelerator: Accelerator,
) -> tuple[dict[Key, Tensor], Backbone]:
    """Return (layer, pooling) -> features (n, D) of the images `indices`, and the backbone that computed them.

    That is a copy of `backbone`, whose BatchNorm statistics are re-estimated on clean training images.
    """
    build.place(backbone, accelerator.device, runtime.layout(backbone))
    clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=accelerator.autocast)
    return extract_maps(clean, pool, indices, poolings=poolings, autocast=accelerator.autocast), clean


def feature_sets(
    config: RunConfig,
    backbone: Backbone,
    pool: Pool,
    indices: Tensor,
    maps_of: Callable[[Backbone], tuple[dict[Key, Tensor], Backbone]],
) -> tuple[dict[str, dict[Key, Tensor]], Backbone]:
    """Return method -> the features (n, D) that its probe may choose from, and the backbone of method `linear`.

    A backbone with random weights is its own random baseline, so its features are computed once.
    """
    train = pool.indices("train")
    if not config.start:
        fit_statistics(backbone, pool, train)
    own, clean = maps_of(backbone)
    found = {"linear": own}
    if config.init_from or config.backbone.pretrained:
        torch.manual_seed(config.seed)
        random = Backbone.of(replace(config.backbone, pretrained=False), config.image_size)
        fit_statistics(random, pool, train)
        found["linear_random_init"] = maps_of(random)[0]
    else:
        found["linear_random_init"] = found["linear"]
    if is_convolutional(backbone):
        found["pixels"] = {(0, "pixels"): pixel_features(pool, indices)}
    return found, clean


def predict_task(
    features: Mapping[str, Mapping[Key, Tensor]], task: ProbeTask, subsets: Mapping[str, LabelFraction]
) -> tuple[dict[str, dict[str, ProbePrediction]], np.ndarray]:
    """Return fraction -> method -> its prediction, and the standardised features (n, D) chosen for `linear`.

    Layer and pooling are chosen once per method, with all labels. No test label is read.
    """
    labelled = {name: task.train[subset.rows] for name, subset in subsets.items()}
    found: dict[str, dict[str, ProbePrediction]] = {
        name: {"majority": predict_constant(task, r)} for name, r in labelled.items()
    }
    for method, candidates in features.items():
        if method != "linear" and candidates is features["linear"]:
            for predictions in found.values():
                predictions[method] = predictions["linear"]
            continue
        key, scores = choose_features(candidates, task)
        where = {"layer": key[0], "pooling": key[1]}
        tried = {f"{layer} {pooling}": value for (layer, pooling), value in scores.items()}
        x = standardise(candidates[key].numpy(), task.train)
        for name, rows in labelled.items():
            linear = predict_linear(x, task, rows)
            of_all = {"tried": tried} if name == ALL_LABELS and tried else {}
            found[name][method] = ProbePrediction(linear.prediction, {**where, **linear.chosen, **of_all})
            if method == "linear":
                nearest = predict_knn(candidates[key], task, rows)
                found[name]["knn"] = ProbePrediction(nearest.prediction, {**where, **nearest.chosen})
        if method == "linear":
            chosen_features = x
    return found, chosen_features


def score_tasks(
    pool: Pool,
    indices: Tensor,
    tasks: Mapping[str, ProbeTask],
    subsets: Mapping[str, Mapping[str, LabelFraction]],
    predictions: Mapping[str, Mapping[str, Mapping[str, ProbePrediction]]],
) -> dict[str, Any]:
    """Return `metrics` of the result. This is the only place where a probe reads test labels.

    Rows are those of `indices` (n,); `predictions` maps a task to fractions, and these to methods.
    """
    metrics: dict[str, Any] = {"tasks": {}, "fractions": {}}
    for name, task in tasks.items():
        clusters = pool.cluster[indices[task.test].numpy()]
        for fraction, found in predictions[name].items():
            scores = score_task(task, found, clusters)
            subset = subsets[name][fraction]
            row = {
                "kind": task.kind,
                "requested": subset.requested,
                "fraction": subset.fraction,
                "num_labelled": subset.num_labelled,
                **{method: {m: s.to_json() for m, s in own.items()} for method, own in scores.items()},
                "chosen": {method: prediction.chosen for method, prediction in found.items() if prediction.chosen},
            }
            if fraction == ALL_LABELS:
                metrics["tasks"][name] = row
            else:
                metrics["fractions"].setdefault(fraction, {"tasks": {}})["tasks"][name] = row
    return metrics


def warn_about_convergence(run: Run, name: str, predictions: Mapping[str, Mapping[str, ProbePrediction]]) -> None:
    """Warn about the task's probes whose optimiser did not converge; `predictions` maps fractions to methods."""
    for fraction, found in predictions.items():
        for method, prediction in found.items():
            if not prediction.chosen.get("converged", True):
                run.warn(f"task {name}: the probe {method} at fraction {fraction} stopped before its optimum.")

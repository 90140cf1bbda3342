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
from vision_mtl.evaluation.features import Report, extract_maps, pixel_features, with_clean_statistics
from vision_mtl.evaluation.fractions import LabelBudget
from vision_mtl.evaluation.hog import hog_features
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
from vision_mtl.models.batch_norm import copy_for_one
from vision_mtl.recipes import build
from vision_mtl.recipes.band_statistics import fit_statistics
from vision_mtl.recipes.initial_weights import initial_backbone, keeps_statistics, report_weights
from vision_mtl.recipes.labels import FRACTIONS, draw_budget, kept_images
from vision_mtl.training.options import Runtime

ALL_LABELS = "1"  # name of the fraction with all labels
ShowShare = Callable[[float, str], None]  # receives the share done, in [0, 1], and what is done
HOG, HOG_KEY = "hog_knn", (0, "hog")  # the method, and its only features


def open_backbone(config: RunConfig, run: Run) -> Backbone:
    """Return the backbone to probe: a run's, a pretrained one or, with a warning, one with random weights.

    Raises `UserError` without a task.
    """
    if not config.tasks:
        raise UserError("probe needs a labelled task: give --tasks.NAME.source SOURCE.")
    torch.manual_seed(config.seed)
    backbone = initial_backbone(config, run)
    name = config.backbone.name
    if config.start:
        load_backbone(backbone, config.start)
        run.say(f"probing {config.start}")
    elif config.backbone.pretrained:
        run.say(f"probing the pretrained weights of {name}")
    else:
        run.warn(f"probing {name} with random weights: give --init_from RUN or --backbone.pretrained for others.")
    report_weights(run, backbone, is_new=config.start is None)
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
    return indices, tasks


def draw_budgets(
    config: RunConfig, run: Run, pool: Pool, tasks: Mapping[str, ProbeTask], fractions: list[float]
) -> dict[str, dict[str, LabelBudget]]:
    """Return task -> fraction's name -> the labels that it may use, and list the images in `fractions.json`.

    Rows of a budget count the task's training or validation images.
    """
    found: dict[str, dict[str, LabelBudget]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        for fraction in sorted({*fractions, 1.0}):
            budget = draw_budget(config, pool, name, fraction)
            found.setdefault(name, {})[f"{fraction:g}"] = budget
            kept.setdefault(f"{fraction:g}", {})[name] = kept_images(pool, name, budget)
            for text in budget.warnings():
                run.warn(f"task {name}: {text}")
        _warn_about_validation(run, name, task, found[name])
    if run.is_main:
        atomic_write_json(run.folder / FRACTIONS, kept)
    return found


def _warn_about_validation(run: Run, name: str, task: ProbeTask, budgets: Mapping[str, LabelBudget]) -> None:
    """Warn once about a task's fractions whose validation images are too few to choose by."""
    counts = {f: validation_warning(task.kind, b.validation.num_labelled, task.num_outputs) for f, b in budgets.items()}
    few = {fraction: text for fraction, text in counts.items() if text}
    if few:
        others = f" (and at {', '.join(list(few)[1:])})" if len(few) > 1 else ""
        first = next(iter(few))
        run.warn(f"task {name}: at fraction {first}{others}: {few[first]}")


def clean_maps(
    backbone: Backbone,
    reestimate: bool,
    report: Report = lambda share: None,
    *,
    pool: Pool,
    indices: Tensor,
    poolings: Sequence[str],
    crops: int,
    runtime: Runtime,
    accelerator: Accelerator,
) -> tuple[dict[Key, Tensor], Backbone]:
    """Return (layer, pooling) -> features (n, D) of the images `indices`, and the backbone that computed them.

    That is a copy of `backbone`; with `reestimate` its BatchNorm statistics are those of clean training images.
    """
    build.place(backbone, accelerator.device, runtime.layout(backbone))
    if reestimate:
        clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=accelerator.autocast)
    else:
        clean = copy_for_one(backbone).eval()
    autocast = accelerator.autocast
    maps = extract_maps(clean, pool, indices, poolings=poolings, autocast=autocast, crops=crops, report=report)
    return maps, clean


def feature_sets(
    config: RunConfig,
    backbone: Backbone,
    pool: Pool,
    indices: Tensor,
    maps_of: Callable[[Backbone, bool, Report], tuple[dict[Key, Tensor], Backbone]],
    show: ShowShare = lambda share, text: None,
) -> tuple[dict[str, dict[Key, Tensor]], Backbone]:
    """Return method -> the features (n, D) that its probe may choose from, and the backbone of method `linear`.

    A backbone with random weights is its own random baseline, so its features are computed once. `hog_knn` has no
    choice and no probe: its features go to kNN. `show` receives the share done and what is extracted.
    """
    train = pool.indices("train")
    if not config.start:
        fit_statistics(backbone, pool, train)
    has_random = bool(config.init_from or config.backbone.pretrained)
    passes = 3 if has_random else 2  # over the images: weights, random weights, HOG; pixels take no time

    def part(number: int, text: str) -> Report:
        return lambda share: show((number + share) / passes, text)

    own, clean = maps_of(backbone, not keeps_statistics(config), part(0, "network"))
    found = {"linear": own}
    if has_random:
        torch.manual_seed(config.seed)
        random = Backbone.of(replace(config.backbone, pretrained=False), config.image_size)
        fit_statistics(random, pool, train)
        found["linear_random_init"] = maps_of(random, True, part(1, "random weights"))[0]
    else:
        found["linear_random_init"] = found["linear"]
    if is_convolutional(backbone):
        found["pixels"] = {(0, "pixels"): pixel_features(pool, indices)}
    found[HOG] = {HOG_KEY: hog_features(pool, indices, report=part(passes - 1, "HOG"))}
    return found, clean


def predict_task(
    features: Mapping[str, Mapping[Key, Tensor]], task: ProbeTask, budgets: Mapping[str, LabelBudget]
) -> tuple[dict[str, dict[str, ProbePrediction]], np.ndarray]:
    """Return fraction -> method -> its prediction, and the standardised features (n, D) of `linear` on all labels.

    Every choice is made for each method and fraction anew, with the labels of the fraction. No test label is read.
    """
    found: dict[str, dict[str, ProbePrediction]] = {}
    for name, budget in budgets.items():
        rows, own = task.train[budget.train.rows], replace(task, val=task.val[budget.validation.rows])
        found[name] = {"majority": predict_constant(own, rows)}
        for method, candidates in features.items():
            if method == HOG:
                found[name][method] = predict_knn(candidates[HOG_KEY], own, rows)
            elif method != "linear" and candidates is features["linear"]:
                found[name][method] = found[name]["linear"]
            else:
                predictions, key = _predict_method(method, candidates, own, rows)
                found[name] |= predictions
                if method == "linear" and name == ALL_LABELS:
                    shown = standardise(candidates[key].numpy(), task.train)
    return found, shown


def _predict_method(
    method: str, candidates: Mapping[Key, Tensor], task: ProbeTask, rows: np.ndarray
) -> tuple[dict[str, ProbePrediction], Key]:
    """Return the predictions of a linear probe on the chosen features, for `linear` with kNN, and their key."""
    key, scores = choose_features(candidates, task, rows)
    where = {"layer": key[0], "pooling": key[1]}
    tried = {f"{layer} {pooling}": value for (layer, pooling), value in scores.items()}
    linear = predict_linear(standardise(candidates[key].numpy(), task.train), task, rows)
    chosen = {**where, **linear.chosen} | ({"tried": tried} if tried else {})
    found = {method: ProbePrediction(linear.prediction, chosen)}
    if method == "linear":
        nearest = predict_knn(candidates[key], task, rows)
        found["knn"] = ProbePrediction(nearest.prediction, {**where, **nearest.chosen})
    return found, key


def score_tasks(
    pool: Pool,
    indices: Tensor,
    tasks: Mapping[str, ProbeTask],
    budgets: Mapping[str, Mapping[str, LabelBudget]],
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
            row = {
                "kind": task.kind,
                **budgets[name][fraction].record(),
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

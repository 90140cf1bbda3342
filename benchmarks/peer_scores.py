"""How `peers.py` scores features: by cross-validation without test images in `search`, on test images in `judge`."""
# N rows, n of them test images, D feature width

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
import torch
import yaml
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.peer_runs import ROOT, SIDE, SPLIT_SEED, open_data, settings
from vision_mtl.config.yaml_files import read_config
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation import hog
from vision_mtl.evaluation.features import extract_features, with_clean_statistics
from vision_mtl.evaluation.linear_probe import standardise
from vision_mtl.evaluation.predictions import instance_values, predict_split
from vision_mtl.evaluation.probing import (
    NEIGHBOURS,
    ProbePrediction,
    ProbeTask,
    predict_constant,
    predict_knn,
    predict_linear,
)
from vision_mtl.inference.restore import load_backbone, restore_model
from vision_mtl.recipes import build
from vision_mtl.recipes.labels import FRACTIONS

TASKS = ("digits", "cars", "faces", "pets")
FOLDS = 5
STRENGTHS = (0.01, 0.1)  # of logistic regression, in the search
FRACTION, FINETUNE_STEPS = 0.1, 150  # of the labels; of fine-tuning

Extract = Callable[[torch.Tensor], np.ndarray]  # rows of the pool (n,) -> features (n, D)
Predict = Callable[[np.ndarray, ProbeTask], ProbePrediction]


def backbone_features(run: Path) -> Extract:
    """The last map's mean, of a run's backbone with BatchNorm statistics of undamaged training images."""
    pool, plain = open_data(), settings({})
    model = build.build_model(plain, {})
    load_backbone(model.backbone, run / "checkpoints" / "best.safetensors")
    clean = with_clean_statistics(model.backbone, pool, pool.indices("train"))
    return lambda rows: extract_features(clean, pool, rows).numpy()


def hog_features(rows: torch.Tensor) -> np.ndarray:
    """Histograms of oriented gradients of images `rows` (n,) of the pool."""
    return hog.hog_features(open_data(), rows).numpy()


def cross_validated(extract: Extract, candidates: list[BaseEstimator]) -> dict[str, float]:
    """Task -> accuracy on training and validation images by cross-validation, of the best candidate.

    Duplicates are in one fold.
    """
    pool, found = open_data(), {}
    for task in TASKS:
        rows = torch.cat([pool.indices(split, task=task) for split in ("train", "val")])
        features, labels, groups = extract(rows), pool.labels[task][rows.numpy()], pool.cluster[rows.numpy()]
        folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(features, labels, groups))
        scores = [cross_val_score(one, features, labels, cv=folds).mean() for one in candidates]
        found[task] = float(max(scores))
    return found


def linear_candidates() -> list[BaseEstimator]:
    """The probes of learned features in the search."""
    return [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, tol=1e-3)) for c in STRENGTHS]


def neighbour_candidates() -> list[BaseEstimator]:
    """The probes of HOG in the search."""
    centred = StandardScaler(with_std=False)  # as in `evaluation/knn.py`
    return [make_pipeline(centred, KNeighborsClassifier(k, weights="distance", metric="cosine")) for k in NEIGHBOURS]


def largest_class(pool: Pool) -> dict[str, float]:
    """Task -> share of the commonest class among training and validation images."""
    rows = {task: torch.cat([pool.indices(split, task=task) for split in ("train", "val")]) for task in TASKS}
    counts = {task: np.bincount(pool.labels[task][found.numpy()]) for task, found in rows.items()}
    return {task: float(count.max() / count.sum()) for task, count in counts.items()}


def probe_hits(extract: Extract, predict: Predict) -> dict[str, np.ndarray]:
    """Task -> 1 or 0 for every test image; settings of the probe are chosen on validation images."""
    pool, found = open_data(), {}
    for task in TASKS:
        splits = [pool.indices(split, task=task) for split in ("train", "val", "test")]
        every = torch.cat(splits)
        edges = np.cumsum([0, *(len(rows) for rows in splits)])
        train, val, test = (np.arange(a, b) for a, b in itertools.pairwise(edges))
        values = pool.labels[task][every.numpy()]
        asked = ProbeTask("single_label", len(pool.class_names[task]), values, train, val, test)
        answer = predict(extract(every), asked)
        found[task] = (answer.prediction.argmax(1) == values[test]).astype(float)
    return found


def linear(features: np.ndarray, task: ProbeTask) -> ProbePrediction:
    """A linear probe on all training labels."""
    return predict_linear(standardise(features, task.train), task, task.train)


def neighbours(features: np.ndarray, task: ProbeTask) -> ProbePrediction:
    """The nearest neighbours among all training images."""
    return predict_knn(torch.from_numpy(features), task, task.train)


def constant(features: np.ndarray, task: ProbeTask) -> ProbePrediction:
    """The commonest class of the training labels."""
    return predict_constant(task, task.train)


def finetuned_hits(run: Path, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Task -> 1 or 0 for every test image of the four tasks, trained together on few labels; and the run's labels."""
    folder, written = run / "finetune", run / "finetune.yaml"
    config = read_config(ROOT / "configs" / "four_tasks_photos.yaml")
    config |= {"seed": seed, "init_from": str(run), "image_size": SIDE, "runtime": {"num_threads": 1}}
    config["tasks"] = {task: config["tasks"][task] for task in TASKS}
    config["data"] = {"unlabelled": settings({}).data.unlabelled, "split_seed": SPLIT_SEED}
    config["optim"] = {"steps": FINETUNE_STEPS, "max_seconds": None}
    config["finetune"] |= {"label_fraction": FRACTION, "keep_best_per_task": False}
    written.write_text(yaml.safe_dump(config))
    words = ["--stage", "finetune", "--config", str(written), "--run_dir", str(folder)]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder}:\n{done.stderr[-2000:]}")
    model, _ = restore_model(str(folder))
    chosen = {task: open_data().targets[task] for task in TASKS}
    hits = {task: instance_values(found) for task, found in predict_split(model, open_data(), "test", chosen).items()}
    return hits, label_counts(folder)


def label_counts(folder: Path) -> dict[str, dict[str, float]]:
    """Task -> how many labels a run used, without the list of images."""
    (drawn,) = json.loads((folder / FRACTIONS).read_text()).values()
    return {task: {key: n for key, n in found.items() if isinstance(n, int | float)} for task, found in drawn.items()}

"""The trainings of `recipes.py`: pretrain one setting with one seed, judge it on validation images."""
# n images, D feature width

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.record import splits_of
from benchmarks.tables_recipes import DRAWS
from vision_mtl.config.plugins import load_plugins
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.evaluation.features import extract_maps, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.fractions import label_fraction
from vision_mtl.evaluation.predictions import instance_values, predict_task
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes import build
from vision_mtl.recipes.fit import make_trainer
from vision_mtl.recipes.labels import open_labels
from vision_mtl.recipes.repair import build_network, build_trainer, training_images
from vision_mtl.recipes.supervised import build_balancing, build_feed, build_objective
from vision_mtl.recipes.teacher import bind_teachers
from vision_mtl.study.arms import merge

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS, PACKAGED = "photographs", "packaged"  # the five tasks of the studies; the four of the default run
SIDE, SPLIT_SEED = 64, 2
VAL_RATIO = 0.3  # three times the default: on as many images a difference has half of the interval
OBJECTS = {"source": "folder/../shared/data/tiny_imagenet_objects20", "augment": "mirror"}
MOST = {"train": 1000, "val": 500}  # images of a task that a probe is fitted on, and judged on
FRACTION = 0.1  # of the labels
# what the lists on photographs start from
BASE = {"backbone": {"name": "resnet18"}, "optim": {"batch_size": 64, "learning_rate": 4e-3}}
SCORED = 60  # validation images of each source that repairs are scored on
OF_JUDGING = ("finetune", "label_fraction", "score_repairs")  # options of a list that are none of pretraining
STRENGTHS = np.logspace(-1, 5, 13)  # of the ridge on standardised features


def settings(stage: str, options: Mapping[str, Any], seed: int, images_of: str = PHOTOGRAPHS) -> RunConfig:
    """Return the config of `stage` with a setting's own options, on photographs or on the images of the default run."""
    file: dict[str, Any] = {"image_size": SIDE, "seed": seed, "runtime": {"num_threads": 1}}
    if images_of == PHOTOGRAPHS:
        file |= BASE
        photos = read_config(ROOT / "configs" / "study" / "does_ssl_help.yaml")
        data = {**photos["data"], "split_seed": SPLIT_SEED, "val_ratio": VAL_RATIO}
        file |= {"data": data, "tasks": {**photos["tasks"], "objects20": OBJECTS}}
    return resolve(stage, merge(file, options), {})


@lru_cache(1)
def open_data(images_of: str = PHOTOGRAPHS, image_size: Any = SIDE) -> Pool:
    """All images, opened once in each process as long as neither the kind nor the size changes."""
    with silent_run("pretrain") as run:
        return build.open_pool(settings("pretrain", {"image_size": image_size}, 0, images_of), run)


def open_splits(images_of: str = PHOTOGRAPHS) -> dict[str, Any]:
    """Return the entries of a result that name the splits; opens the images before several processes do."""
    config = settings("pretrain", {}, 0, images_of)
    return splits_of(open_data(images_of), config.data, config.tasks)


@contextmanager
def silent_run(stage: str, seed: int = 0) -> Any:
    """A run in a temporary folder that writes and says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), stage, seed)
        run.is_main = False
        yield run


def measure(key: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Pretrain the setting `row`, probe or fine-tune it, score its repairs if asked; return its key and entry."""
    load_plugins([ROOT / file for file in row["plugins"]])
    options = {name: value for name, value in row["options"].items() if name not in OF_JUDGING}
    pool = open_data(row["images_of"], options.get("image_size", SIDE))
    wall, cpu = time.perf_counter(), time.process_time()
    trained = pretrain(options, row["images"], row["seed"], row["images_of"], pool)
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    found = {**row, "steps": trained.steps, "seconds": seconds}
    cpu = time.process_time()
    if "finetune" in row["options"]:
        found["finetune"] = finetune(row["options"], trained.model.backbone, row["seed"])
    else:
        found |= probe(trained.model.backbone, pool)
    if row["options"].get("score_repairs"):
        model, mixture, start = trained.model, trained.mixture, trained.start
        scores = score_pretexts(model, pool, mixture, split="val", start=start, num_images=SCORED)
        found["skill_learned_by_source"] = scores["skill_learned_by_source"]
    return key, {**found, "judging_cpu_seconds": time.process_time() - cpu}


@dataclass(frozen=True)
class Trained:
    """A pretrained model, the same before training, the mixture that it was trained on, and the number of steps."""

    model: SharedModel
    start: SharedModel
    mixture: Mixture
    steps: int


def pretrain(options: Mapping[str, Any], images: int, seed: int, images_of: str, pool: Pool) -> Trained:
    """Return the model after `images` images, averaged weights if there are any."""
    optim = {"batch_size": 64, **options.get("optim", {}), "max_seconds": None}
    steps = max(images // optim["batch_size"], 1)
    config = settings("pretrain", {**options, "optim": {**optim, "steps": steps}}, seed, images_of)
    pretexts = build.build_pretexts(config)
    indices = training_images(config, pool)
    model = build_network(config, pretexts)
    start = deepcopy(model)
    if not images:
        return Trained(model, start, Mixture(pretexts), 0)
    with silent_run("pretrain", seed) as run:
        accelerator = config.runtime.accelerator("cpu")
        pretexts = bind_teachers(config, run, pool, pretexts, accelerator.device)
        trainer = build_trainer(config, run, pool, indices, model, pretexts, accelerator)
        trainer.fit()
    return Trained(trainer.scored_model, start, trainer.objective.mixture, steps)


def probe(backbone: Backbone, pool: Pool) -> dict[str, Any]:
    """Return task -> scores on validation images, of probes on all training labels and on a tenth of them."""
    clean = with_clean_statistics(backbone, pool, pool.indices("train"))
    found: dict[str, Any] = {"probe_1": {}, "probe_0.1": {}}
    for task in pool.targets:
        rows = {s: spread_evenly(pool.indices(s, task=task), most) for s, most in MOST.items()}
        labels = {split: pool.targets[task].values[own.numpy()] for split, own in rows.items()}
        features = {split: extract_maps(clean, pool, own, poolings=("mean",)) for split, own in rows.items()}
        maps = [(features["train"][key].numpy(), features["val"][key].numpy()) for key in features["val"]]
        names = pool.draw_names(rows["train"])
        few = [label_fraction(names, labels["train"], FRACTION, draw).rows for draw in range(DRAWS)]
        for judged, subsets in (("probe_1", [np.arange(len(names))]), ("probe_0.1", few)):
            hits = [
                sum(ridge_hits(train[own], labels["train"][own], val, labels["val"]) for own in subsets)
                for train, val in maps
            ]
            found[judged][task] = summary(hits, len(subsets))
    return found


def ridge_hits(train: np.ndarray, labels: np.ndarray, tested: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return 1 or 0 for each image of `tested` (n, D), by a ridge classifier on `train`, chosen by leave-one-out."""
    fitted = make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS)).fit(train, labels)
    return (fitted.predict(tested) == answers).astype(int)


def summary(hits: list[np.ndarray], draws: int) -> dict[str, Any]:
    """Return the accuracy of the last map, that of every map, and the hits of the last map as digits."""
    layers = [float(own.mean()) / draws for own in hits]
    return {"accuracy": layers[-1], "layers": layers, "hits": "".join(map(str, hits[-1]))}


def finetune(options: Mapping[str, Any], backbone: Backbone, seed: int) -> dict[str, Any]:
    """Return task -> scores on all validation images after fine-tuning on a share of the training labels.

    The last weights are scored; no validation label is used to choose among weights.
    """
    own = dict(options["finetune"])
    optim = {"max_seconds": None, **own.pop("optim", {})}
    shared = {name: options[name] for name in ("backbone", "image_size") if name in options}
    config = settings("finetune", {**shared, **own, "optim": optim}, seed)
    pool, accelerator = open_data(), config.runtime.accelerator("cpu")
    with silent_run("finetune", seed) as run:
        labelled = open_labels(config, run, pool, options.get("label_fraction", FRACTION))
    torch.manual_seed(seed)
    model = build.build_task_model(config, labelled.pool, list(labelled.tasks))
    model.backbone.load_state_dict(backbone.state_dict())
    feed = build_feed(labelled, config.optim, accelerator, seed, temperature=config.options.temperature, num_workers=1)
    balancing = build_balancing(config.balance, model, labelled.tasks)
    trainer = make_trainer(config, accelerator, model, build_objective(labelled), feed, balancing)
    try:
        trainer.fit()
    finally:
        feed.close()
    rows = {task: spread_evenly(pool.indices("val", task=task), MOST["val"]) for task in pool.targets}
    answers = {
        task: predict_task(trainer.scored_model, pool, task, own, accelerator.autocast) for task, own in rows.items()
    }
    hits = {task: instance_values(own).astype(int) for task, own in answers.items()}
    return {task: {"accuracy": float(own.mean()), "hits": "".join(map(str, own))} for task, own in hits.items()}

"""Which decoder gives both good repairs and good features? Equal training time, several seeds.

    python benchmarks/decoders.py [--seeds 3] [--seconds 120] [--jobs 2] [--arms NAME ...] [-- PRETRAIN OPTIONS ...]

Options after `--` are those of `--stage pretrain`: other images, tasks, backbone. The time of a step is measured
first, for all arms in turn within one process, and each arm gets the number of steps that fills `--seconds`; so what
else the machine does meanwhile changes nothing. The arm `untrained` is the model before its first step. Everything is
judged on what choices may be made on: skill on validation images, features by 5-fold cross-validated logistic
regression on the tasks' training images. There, too, are chance and HOG with kNN, which need no training. Writes
`benchmarks/results/decoders.json` and prints the table in Markdown.
About 40 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.record import splits_of, write
from vision_mtl.cli.command import split_words
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import REPAIRS, RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.evaluation.features import extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.hog import hog_features
from vision_mtl.evaluation.knn import knn_accuracy
from vision_mtl.evaluation.statistics import expected_agreement
from vision_mtl.recipes import build
from vision_mtl.recipes.repair import build_repair_objective, training_images
from vision_mtl.training.loop import Trainer
from vision_mtl.training.repair import RepairFeed

ARMS = {
    "untrained": {"name": "stages"},
    "linear": {"name": "linear"},
    "transformer": {"name": "transformer"},
    "stages, stop_gradient": {"name": "stages", "shallow": "stop_gradient"},
    "stages, drop 0.75": {"name": "stages", "shallow": "drop", "drop_ratio": 0.75},
    "stages, drop 0.5": {"name": "stages", "shallow": "drop", "drop_ratio": 0.5},
    "stages, drop 0.25": {"name": "stages", "shallow": "drop", "drop_ratio": 0.25},
    "stages, all": {"name": "stages", "shallow": "all"},
}
ROUNDS, STEPS = 5, 4  # of timing: every round times each arm's steps once; the median round counts
PROBE_IMAGES = 2000  # labelled training images a task
K = 5  # neighbours


def main() -> None:
    own, options = (sys.argv[1:], [])
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    given = parser.parse_args(own)
    torch.set_num_threads(1)
    times = time_arms(given.arms, options)
    steps = {arm: max(1, round(given.seconds / seconds)) for arm, seconds in times.items()}
    print("seconds a step:", {arm: round(seconds, 3) for arm, seconds in times.items()}, flush=True)
    work = [(arm, seed) for seed in range(given.seeds) for arm in given.arms]
    rows = Parallel(given.jobs, verbose=5)(delayed(measure)(arm, seed, steps[arm], options) for arm, seed in work)
    found = baselines(options)
    head = {"seconds": given.seconds, "seconds_per_step": times, "options": options, "baselines": found}
    write("decoders", {**head, "rows": rows}, splits=splits_from(options))
    print(table(rows, times, found))


def time_arms(arms: list[str], options: list[str]) -> dict[str, float]:
    """Median seconds of a training step for each arm, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {arm: trainer_of(arm, 0, 10_000, options, Path(folder) / str(i)) for i, arm in enumerate(arms)}
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(ROUNDS + 1):  # the first warms up
            for arm, trainer in trainers.items():
                start = time.perf_counter()
                for _ in range(STEPS):
                    trainer.step()
                found[arm].append((time.perf_counter() - start) / STEPS)
    return {arm: float(np.median(seconds[1:])) for arm, seconds in found.items()}


def config_of(arm: str, seed: int, steps: int, options: list[str]) -> RunConfig:
    optim = {"steps": steps, "batch_size": 64, "learning_rate": 4e-3}
    file = {"seed": seed, "backbone": {"name": "resnet18"}, "pretexts": REPAIRS, "decoder": ARMS[arm], "optim": optim}
    return resolve("pretrain", file | {"runtime": {"num_threads": 1}}, split_words(options))


def splits_from(options: list[str]) -> dict[str, Any]:
    """Return the splits of the images that every arm is trained and judged on."""
    config = config_of("linear", 0, 1, options)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), "pretrain")
        run.is_main = False  # writes and says nothing
        return splits_of(build.open_pool(config, run), config.data, config.tasks)


def trainer_of(arm: str, seed: int, steps: int, options: list[str], folder: Path) -> Trainer:
    """The trainer that `--stage pretrain` would build."""
    config = config_of(arm, seed, steps, options)
    run = Run(folder, "pretrain", seed)
    run.is_main = False  # writes and says nothing
    runtime, optim = config.runtime, config.optim
    accelerator = runtime.accelerator(config.device)
    torch.manual_seed(seed)
    pretexts = build.build_pretexts(config)
    model = build.build_model(config, pretexts)
    pool = build.open_pool(config, run)
    indices = training_images(config, pool)
    objective = build_repair_objective(config, run, pool, pretexts, indices)
    feed = RepairFeed(pool, Batches(indices, optim.batch_size, seed), seed, accelerator.device)
    return Trainer(model, objective, feed, optim, accelerator, runtime.layout(model.backbone), seed)


def measure(arm: str, seed: int, steps: int, options: list[str]) -> dict[str, Any]:
    """Train one arm with one seed and judge it."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arm, seed, steps, options, Path(folder))
        if arm != "untrained":
            trainer.fit(lambda progress, record: None)
        model, pool, autocast = trainer.scored_model, trainer.feed.pool, trainer.accelerator.autocast
        skills = score_pretexts(model, pool, trainer.objective.mixture, autocast, "val")
        clean = with_clean_statistics(model.backbone, pool, pool.indices("train"), autocast=autocast)
        probes = {task: probe(clean, pool, task, autocast) for task in pool.labels}
    values = {name: score["value"] for name, score in skills["skill"].items()}
    sources = {s: {n: v["value"] for n, v in found.items()} for s, found in skills["skill_by_source"].items()}
    images = trainer.progress.images_seen
    return {"arm": arm, "seed": seed, "images": images, "skill": values, "skill_by_source": sources, "probe": probes}


def probe(backbone: Any, pool: Pool, task: str, autocast: Any) -> float:
    """Accuracy of logistic regression on frozen features, 5-fold cross-validated."""
    indices = spread_evenly(pool.indices("train", task=task), PROBE_IMAGES)
    features = extract_features(backbone, pool, indices, autocast=autocast).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return float(cross_val_score(classifier, features, pool.labels[task][indices.numpy()], cv=5).mean())


def baselines(options: list[str]) -> dict[str, dict[str, float]]:
    """Method -> task -> accuracy on the images of `probe`: chance, and HOG with kNN in the same number of folds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), "pretrain", 0)
        run.is_main = False  # writes and says nothing
        pool = build.open_pool(config_of("linear", 0, 1, options), run)
    found: dict[str, dict[str, float]] = {"chance": {}, "HOG + kNN": {}}
    for task, classes in pool.labels.items():
        indices = spread_evenly(pool.indices("train", task=task), PROBE_IMAGES)
        x, y = hog_features(pool, indices), torch.from_numpy(classes[indices.numpy()])
        folds = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in StratifiedKFold(5).split(x, y)]
        found["chance"][task] = expected_agreement(y.numpy(), y.numpy())
        found["HOG + kNN"][task] = float(np.mean([knn_accuracy(x[a], y[a], x[b], y[b], k=K) for a, b in folds]))
    return found


def table(rows: list[dict[str, Any]], times: dict[str, float], baselines: dict[str, dict[str, float]]) -> str:
    """Mean and standard deviation over seeds, in Markdown; the first source is the unlabelled one."""
    source = next(iter(rows[0]["skill_by_source"]))
    pretexts, tasks = list(rows[0]["skill"]), list(rows[0]["probe"])
    lines = [
        "| decoder | images | "
        + " | ".join([f"{p}, {source}" for p in pretexts] + [f"probe {t}" for t in tasks])
        + " |"
    ]
    lines.append("|---" * (2 + len(pretexts) + len(tasks)) + "|")
    for arm in times:
        own = [row for row in rows if row["arm"] == arm]
        columns = [[row["skill_by_source"][source].get(p, np.nan) for row in own] for p in pretexts]
        columns += [[row["probe"][t] for row in own] for t in tasks]
        cells = [f"{np.mean(c):.3f} ± {np.std(c, ddof=1) if len(c) > 1 else 0:.3f}" for c in columns]
        lines.append(f"| {arm} | {own[0]['images']:,} | " + " | ".join(cells) + " |")
    for method, scores in baselines.items():
        cells = ["" for _ in pretexts] + [f"{scores[t]:.3f}" for t in tasks]
        lines.append(f"| {method} | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

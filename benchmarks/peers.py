"""Ours against lightly 1.6: images a second, and what is learnt in equal wall time.

    pip install lightly==1.6.0 stable-pretraining==0.1.8  # the second may be left out
    python benchmarks/peers.py speed [--blocks 30] [--arms NAME ...]
    python benchmarks/peers.py search [--seconds 60] [--arms NAME ...]
    python benchmarks/peers.py judge [--seconds 60] [--seeds 8] [--arms NAME ...]

`speed`: a step of each method, data included, interleaved: resnet18 that repairs the default mixture against lightly's
SimCLR, and a masked autoencoder of vit_tiny (patch 8, 75 % hidden, decoder of width 128) against lightly's and, where
it is installed, stable-pretraining's (`stable_mae`). 64 pixels, batch 128, the machine's precision for all. Batches of
peers come from their own transforms in a DataLoader of 2 workers. `--arms` times only the comparisons that these are
in; what else stands in the result file is kept, each row with the commit and date of its own sitting.

`search` and `judge` pretrain resnet18 on the pool of `configs/pretrain_photos.yaml`. Each method may use the steps that
it does in `--seconds` on this machine, by the rates that `speed` measured, so that a busy machine changes nothing.
`search` shows cross-validated scores of the candidates in `OURS` and `PEERS` on training and validation images; test
images stay shut (`rows` in the result file: one seed's scores on validation images alone, of an earlier version).
`judge` takes one arm of each kind, frozen by then, over paired seeds: linear probes on all labels, and fine-tuning on a
tenth of them, test images compared instance by instance with Holm's correction. Writes
`benchmarks/results/peers.json`.
"""
# B images, D feature width, V views

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
import torch
import yaml
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from benchmarks.interleave import RESULTS, interleave, metadata, shown, speed_ratio, summary
from benchmarks.lightly_methods import BATCH, SIDE, WORKERS, mae, simclr
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.comparisons import compare
from vision_mtl.evaluation.families import family
from vision_mtl.evaluation.features import extract_features, with_clean_statistics
from vision_mtl.evaluation.linear_probe import standardise
from vision_mtl.evaluation.predictions import instance_values, predict_split
from vision_mtl.evaluation.probing import ProbeTask, predict_linear
from vision_mtl.inference.restore import load_backbone, restore_model
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes import build
from vision_mtl.recipes.repair import build_network, build_trainer, training_images
from vision_mtl.training.checkpoint import save_weights
from vision_mtl.training.loop import Trainer

ROOT = Path(__file__).parent.parent
RESULT = RESULTS / "peers.json"
TASKS = ("digits", "cars", "faces", "pets")
FRACTION, FINETUNE_STEPS = 0.1, 150  # of the labels; of fine-tuning
FOLDS = 5  # of the search

RATIO = {"grid": 8, "hidden": "ratio", "ratio": 0.6}
SQUARE = {"stretch": 1.0}
OURS: dict[str, dict[str, Any]] = {  # our candidates: what their configs say beside the photographs' one
    "mixture": {"pretexts": {"grid_mask": None, "decolorise": None, "downsample": None}},
    "masked": {"pretexts": {"grid_mask": RATIO}, "decoder": {"name": "linear"}},
    "contrast": {"pretexts": {"contrast": SQUARE}},
    "contrast_small": {"pretexts": {"contrast": SQUARE}, "image_size": 48},
    "contrast_masked": {
        "pretexts": {"contrast": SQUARE, "grid_mask": RATIO},
        "decoder": {"name": "linear"},
        "image_size": 48,
    },
    "contrast_fast": {"pretexts": {"contrast": SQUARE}, "optim": {"learning_rate": 0.01}},
    "contrast_small_fast": {"pretexts": {"contrast": SQUARE}, "image_size": 48, "optim": {"learning_rate": 0.01}},
    "contrast_wide": {"pretexts": {"contrast": {**SQUARE, "smallest_crop": 0.15}}, "image_size": 48},
    "contrast_sharp": {"pretexts": {"contrast": {**SQUARE, "temperature": 0.1}}, "image_size": 48},
    "contrast_stretched": {"pretexts": {"contrast": None}, "image_size": 48, "optim": {"learning_rate": 0.01}},
    "contrast_small_views": {"pretexts": {"contrast": {"view_size": 48}}, "optim": {"learning_rate": 0.01}},
    "contrast_four_views": {
        "pretexts": {"contrast": {"views": 4, "view_size": 32, "stretch": 1.4}},
        "optim": {"learning_rate": 0.01},
    },
}
MASKED_VIT = {
    "backbone": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8}},
    "decoder": {"name": "transformer", "width": 128, "depth": 1, "num_heads": 4},
    "pretexts": {"grid_mask": {"grid": 8, "hidden": "ratio", "ratio": 0.75, "residual": False}},
}
PEERS: dict[str, dict[str, Any]] = {  # lightly's SimCLR with its own defaults, and what its documentation advises
    "simclr": {},
    "simclr_small_images": {"transform": {"cj_strength": 0.5, "gaussian_blur": 0.0}},
    "simclr_adamw": {"transform": {"cj_strength": 0.5, "gaussian_blur": 0.0}, "adamw": True, "temperature": 0.2},
    "simclr_gentle": {
        "transform": {"cj_strength": 0.5, "gaussian_blur": 0.0, "min_scale": 0.3},
        "adamw": True,
        "temperature": 0.2,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "search", "judge"))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--arms", nargs="+", default=[])
    parser.add_argument("--jobs", type=int, default=2, help="of judge: seeds at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"))
    given = parser.parse_args()
    {"speed": speed, "search": search, "judge": judge}[given.what](given)


# --- the pool and our own training


def settings(own: dict[str, Any], seed: int = 0) -> RunConfig:
    """The photographs' config of --stage pretrain, with a candidate's own part."""
    config = read_config(ROOT / "configs" / "pretrain_photos.yaml") | {"image_size": SIDE, "seed": seed} | own
    config["optim"] = {**own.get("optim", {}), "batch_size": BATCH, "max_seconds": None, "steps": 10**6}
    return resolve("pretrain", config, {})


def silent_run(folder: Path) -> Run:
    """A run that writes and says nothing."""
    run = Run(folder, "pretrain")
    run.is_main = False
    return run


def our_trainer(config: RunConfig, pool: Pool, runs: Path) -> Trainer:
    """What `--stage pretrain` would train."""
    runtime = config.runtime
    accelerator = runtime.accelerator("auto")
    pretexts, indices = build.build_pretexts(config), training_images(config, pool)
    model = build_network(config, pretexts)
    return build_trainer(config, silent_run(runs), pool, indices, model, pretexts, accelerator)


# --- images a second


def speed(given: argparse.Namespace) -> None:
    """Every candidate's rate, and the ratios that are claimed."""
    pools: dict[str, Pool] = {}
    config, pool = opened(settings({}), given.runs, pools)
    peers = peer_builders(pool, training_images(config, pool))
    rates, ratios = {}, {}
    for rivals, ours in ((["simclr"], OURS), (["mae", "stable_mae"], {"masked_vit": MASKED_VIT})):
        if given.arms and not {*rivals, *ours} & {*given.arms}:
            continue
        methods: dict[str, Callable[[], object]] = {n: peers[n]().step for n in rivals if n in peers}
        rivals = list(methods)
        for name, own in ours.items():
            if given.arms and name not in given.arms and {*ours} & {*given.arms}:
                continue  # of the candidates those that are named
            trainer = our_trainer(*opened(settings(own), given.runs, pools), given.runs)
            trainer.model.train()
            methods[name] = trainer.step
        seconds = interleave(methods, blocks=given.blocks)
        rates |= {
            name: {**summary(values), "images_per_second": BATCH / float(np.median(values))}
            for name, values in seconds.items()
        }
        ratios |= {
            f"{name} to {peer}": speed_ratio(seconds, name, peer) for peer in rivals for name in ours if name in seconds
        }
    found = {"rates": {**earlier("rates", given), **rates}, "ratios": {**earlier("ratios", given), **ratios}}
    keep("speed", {**found, "batch": BATCH, "image_size": SIDE, "workers": WORKERS})
    for name, row in rates.items():
        print(f"{name:20s} {row['images_per_second']:7.0f} images/s")
    for name, ratio in ratios.items():
        print(f"{name}: {shown(ratio)}")


def peer_builders(pool: Pool, indices: Tensor) -> dict[str, Callable[[], Any]]:
    """By name, what builds a peer that has a `step`; one that is not installed is said, and left out."""
    builders: dict[str, Callable[[], Any]] = {
        "simclr": lambda: simclr(pool, indices, 10**6, {}, 0),
        "mae": lambda: mae(pool, indices, 0),
    }
    if find_spec("stable_pretraining") is None:
        print("stable_mae is left out: pip install stable-pretraining==0.1.8", file=sys.stderr)
        return builders
    from benchmarks.stable_methods import StableMAE

    return {**builders, "stable_mae": lambda: StableMAE(pool, indices, 0)}


def earlier(what: str, given: argparse.Namespace) -> dict[str, Any]:
    """With `--arms`, the rows of other sittings, each with the commit and date of its own."""
    before = json.loads(RESULT.read_text()).get("speed", {}) if given.arms and RESULT.exists() else {}
    sitting = {key: before.get(key) for key in ("commit", "date")}
    return {name: {**sitting, **row} for name, row in before.get(what, {}).items()}


def opened(config: RunConfig, runs: Path, pools: dict[str, Pool]) -> tuple[RunConfig, Pool]:
    """The config's pool, opened once for each image size."""
    key = str(config.image_size)
    if key not in pools:
        pools[key] = build.open_pool(config, silent_run(runs))
    return config, pools[key]


def keep(part: str, found: dict[str, Any]) -> None:
    """Write one part of the result file beside the others."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**before, part: {**found, **metadata()}}, indent=1) + "\n")


# --- what is learnt


def steps_of(name: str, seconds: float) -> int:
    """How many steps a method does in so many seconds here."""
    rates = json.loads(RESULT.read_text())["speed"]["rates"]
    # options that change no arithmetic cost what the plain candidate does
    plain = "contrast_small" if OURS.get(name, {}).get("image_size") else "contrast" if name in OURS else "simclr"
    own = name if name in rates else plain
    return round(seconds / rates[own]["median"])


def pretrained(name: str, seed: int, given: argparse.Namespace, pools: dict[str, Pool]) -> Path:
    """A checkpoint of the method's backbone, made once, in the form that other stages start from."""
    path = given.runs / f"{name}-{seed}-{given.seconds:g}s" / "checkpoints" / "best.safetensors"
    if path.exists():
        return path
    start = time.perf_counter()
    config, pool = opened(settings(OURS.get(name, {}), seed), given.runs, pools)
    plain, large = opened(settings({}, seed), given.runs, pools)
    model = build.build_model(plain, build.build_pretexts(plain))
    steps = steps_of(name, given.seconds)
    if name in OURS:
        config.optim.steps = steps
        trainer = our_trainer(config, pool, given.runs)
        trainer.fit(lambda progress, record: None)
        model.backbone.load_state_dict(trainer.scored_model.backbone.state_dict())
    elif name in PEERS:
        peer = simclr(pool, training_images(config, pool), steps, PEERS[name], seed)
        for _ in range(steps):
            peer.step()
        model.backbone.model.load_state_dict(peer.model.backbone.state_dict(), strict=False)
    else:
        raise SystemExit(f"arms are {', '.join((*OURS, *PEERS, 'none'))}; found {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, {"step": steps, **build.describe_model(plain, model, large)}, model.state_dict())
    print(f"{name}, seed {seed}: {steps} steps, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return path


def frozen(path: Path, given: argparse.Namespace, pools: dict[str, Pool]) -> tuple[Backbone, Pool]:
    """A checkpoint's backbone with statistics of undamaged images, and the pool."""
    config, pool = opened(settings({}), given.runs, pools)
    model = build.build_model(config, {})
    load_backbone(model.backbone, path)
    return with_clean_statistics(model.backbone, pool, pool.indices("train")), pool


def probe(path: Path, given: argparse.Namespace, pools: dict[str, Pool]) -> dict[str, tuple[float, np.ndarray]]:
    """Task -> validation score, and 1 or 0 for every test image."""
    clean, pool = frozen(path, given, pools)
    found = {}
    for task in TASKS:
        sides = {side: pool.indices(side, task=task) for side in ("train", "val", "test")}
        every = torch.cat(list(sides.values()))
        features = extract_features(clean, pool, every).numpy()
        edges = np.cumsum([0, *(len(side) for side in sides.values())])
        rows = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
        values = pool.labels[task][every.numpy()]
        asked = ProbeTask("single_label", len(pool.class_names[task]), values, *rows)
        answer = predict_linear(standardise(features, rows[0]), asked, rows[0])
        right = (answer.prediction.argmax(1) == values[rows[2]]).astype(float)
        found[task] = answer.chosen["val_score"], right
    return found


def crossed(path: Path, given: argparse.Namespace, pools: dict[str, Pool]) -> dict[str, float]:
    """Task -> accuracy on training and validation images by cross-validation, of the better of two strengths."""
    clean, pool = frozen(path, given, pools)
    found = {}
    for task in TASKS:
        rows = torch.cat([pool.indices(side, task=task) for side in ("train", "val")])
        features, labels = extract_features(clean, pool, rows).numpy(), pool.labels[task][rows.numpy()]
        features = standardise(features, np.arange(len(features)))
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        found[task] = max(
            float(cross_val_score(LogisticRegression(C=c, max_iter=300, tol=1e-3), features, labels, cv=folds).mean())
            for c in (0.01, 0.1)
        )
    return found


def search(given: argparse.Namespace) -> None:
    """Cross-validated scores of the candidates; no test image is looked at."""
    pools: dict[str, Pool] = {}
    part = json.loads(RESULT.read_text()).get("search", {})
    rows = dict(part.get("crossed", {}))
    for name in given.arms or [*OURS, *PEERS]:
        paths = [pretrained(name, seed, given, pools) for seed in range(100, 100 + given.seeds)]
        scores = [crossed(path, given, pools) for path in paths]
        rows[name] = {task: float(np.mean([s[task] for s in scores])) for task in TASKS}
        rows[name]["seeds"] = given.seeds
        mean = np.mean([rows[name][task] for task in TASKS])
        print(f"| {name} | " + " | ".join(f"{rows[name][t]:.3f}" for t in TASKS) + f" | {mean:.3f} |", flush=True)
        keep("search", {**part, "seconds": given.seconds, "crossed": rows})


def judge(given: argparse.Namespace) -> None:
    """Two frozen arms, ours first: paired seeds, test images, probes and fine-tuning."""
    ours, peer = given.arms
    _, pool = opened(settings({}), given.runs, {})
    # processes of one thread do more together than one of several; equal steps are equal work either way
    learnt = Parallel(given.jobs)(delayed(learn)(seed, given) for seed in range(given.seeds))
    values: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for (arm, how), right in ((key, right) for of_seed in learnt for key, right in of_seed.items()):
        for task, of_task in right.items():
            values.setdefault((how, task), {}).setdefault(arm, []).append(of_task)
    found = []
    for (how, task), by_arm in values.items():
        clusters = pool.cluster[pool.indices("test", task=task).numpy()]
        a, b = (np.stack(by_arm[arm]) for arm in (ours, peer))
        fraction = 1.0 if how == "probe" else FRACTION
        found.append((how, compare(a, b, clusters, task=task, fraction=fraction, arm=ours, baseline=peer)))
    rows = family([one for _, one in found])
    for (how, _), row in zip(found, rows, strict=True):
        row["how"] = how
    keep(
        "judge",
        {
            "seconds": given.seconds,
            "seeds": given.seeds,
            "arms": [ours, peer],
            "comparisons": rows,
            "finetune_steps": FINETUNE_STEPS,
            "steps": {arm: steps_of(arm, given.seconds) for arm in (ours, peer)},
        },
    )
    print(f"| how | task | {peer} | {ours} | difference | verdict |\n|---|---|---|---|---|---|")
    for (how, one), row in zip(found, rows, strict=True):
        low, high = one.difference.low, one.difference.high
        print(
            f"| {how} | {one.task} | {one.baseline_score.value:.3f} | {one.arm_score.value:.3f} | "
            f"{one.difference.value:+.3f} ({low:+.3f} to {high:+.3f}) | {row['verdict']} |"
        )


def learn(seed: int, given: argparse.Namespace) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """(arm, how it was judged) -> task -> 1 or 0 for every test image, of one seed; what has been trained is kept."""
    torch.set_num_threads(1)
    pools: dict[str, Pool] = {}
    _, pool = opened(settings({}), given.runs, pools)
    found = {}
    for arm in given.arms:
        path = pretrained(arm, seed, given, pools)
        found[arm, "probe"] = {task: right for task, (_, right) in probe(path, given, pools).items()}
        found[arm, "finetune"] = finetuned(path, seed, given, pool)
    return found


def finetuned(path: Path, seed: int, given: argparse.Namespace, pool: Pool) -> dict[str, np.ndarray]:
    """Task -> 1 or 0 for every test image, of the four tasks trained together from the checkpoint on few labels."""
    folder = path.parent.parent / "finetune"
    config = read_config(ROOT / "configs" / "four_tasks_photos.yaml")
    config |= {"seed": seed, "init_from": str(path.parent.parent), "runtime": {"num_threads": 1}}
    config["tasks"] = {task: config["tasks"][task] for task in TASKS}
    config["data"] = {"unlabelled": settings({}).data.unlabelled}
    config["optim"] = {"steps": FINETUNE_STEPS, "max_seconds": None}
    config["finetune"] |= {"label_fraction": FRACTION, "keep_best_per_task": False}
    written = folder.with_suffix(".yaml")
    written.write_text(yaml.safe_dump(config))
    words = ["--config", str(written), "--run_dir", str(folder)]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder}:\n{done.stderr[-2000:]}")
    model, _ = restore_model(str(folder))
    chosen = {task: pool.targets[task] for task in TASKS}
    return {task: instance_values(found) for task, found in predict_split(model, pool, "test", chosen).items()}


if __name__ == "__main__":
    main()

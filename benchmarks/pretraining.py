"""Does pretraining help the tasks where labels are few? A pretrained backbone against a random one, over paired seeds.

    python train.py --config configs/pretrain_photos.yaml --run_dir runs/photos
    python benchmarks/pretraining.py runs/photos [--config configs/four_tasks_photos.yaml] [--label_fraction 0.1]
        [--seeds 5] [--steps 250] [--jobs 2] [--runs runs/pretraining] [-- FINETUNE OPTIONS ...]

Both arms finetune the config's tasks with the same seeds, label subsets, steps and options; each keeps the weights that
validation images choose. Test images are then compared instance by instance (`evaluation/comparisons.py`), with Holm's
correction over the tasks. Finished runs are not repeated. Prints a table in Markdown and writes
`benchmarks/results/pretraining.json`. About 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
from joblib import Parallel, delayed

from vision_mtl.cli.command import split_words
from vision_mtl.config.resolve import resolve
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.environment import environment
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.comparisons import Comparison, compare
from vision_mtl.evaluation.families import family
from vision_mtl.evaluation.predictions import instance_values, predict_split
from vision_mtl.inference.restore import restore_model
from vision_mtl.recipes import build

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "pretraining.json"
ARMS = ("random", "pretrained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pretrained", type=Path, help="run folder of --stage pretrain")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "four_tasks_photos.yaml")
    parser.add_argument("--label_fraction", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/pretraining"))
    own, options = sys.argv[1:], []
    if "--" in own:  # what follows are further options of --stage finetune, for both arms
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own, argparse.Namespace(options=options))
    work = [(arm, seed) for seed in range(given.seeds) for arm in ARMS]
    Parallel(given.jobs, backend="threading")(delayed(finetune)(arm, seed, given) for arm, seed in work)
    found = comparisons(given)
    rows = family(found)
    head = {**environment(), "label_fraction": given.label_fraction, "steps": given.steps}
    RESULT.write_text(json.dumps({**head, "comparisons": rows}, indent=1) + "\n")
    print(table(found, rows))


def finetune(arm: str, seed: int, given: argparse.Namespace) -> None:
    """One run as a process of one thread; one that is completed ends at once."""
    words = ["--config", str(given.config), "--seed", str(seed), "--run_dir", str(given.runs / f"{arm}-{seed}")]
    words += ["--optim.steps", str(given.steps), "--optim.max_seconds", "null", "--runtime.num_threads", "1"]
    words += ["--finetune.label_fraction", str(given.label_fraction), "--finetune.keep_best_per_task", "false"]
    words += ["--init_from", str(given.pretrained)] if arm == "pretrained" else []
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *given.options], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{arm}, seed {seed}:\n{done.stderr[-2000:]}")
    print(f"{arm}, seed {seed}: done", flush=True)


def comparisons(given: argparse.Namespace) -> list[Comparison]:
    """A comparison for each task, from the kept weights of every run."""
    config = resolve("finetune", read_config(given.config), split_words(given.options))
    run = Run(given.runs, "finetune")
    run.is_main = False  # writes and says nothing
    pool = build.open_pool(config, run)
    values = {arm: [test_values(given.runs / f"{arm}-{seed}", pool) for seed in range(given.seeds)] for arm in ARMS}
    found = []
    for task in config.tasks:
        clusters = pool.cluster[pool.indices("test", task=task).numpy()]
        random, pretrained = (np.stack([own[task] for own in values[arm]]) for arm in ARMS)
        names = {"task": task, "fraction": given.label_fraction, "arm": ARMS[1], "baseline": ARMS[0]}
        found.append(compare(pretrained, random, clusters, **names))
    return found


def test_values(folder: Path, pool: Pool) -> dict[str, np.ndarray]:
    """Task -> how good the run's answer for each test image is."""
    model, _ = restore_model(str(folder))
    return {task: instance_values(found) for task, found in predict_split(model, pool, "test", pool.targets).items()}


def table(found: list[Comparison], rows: list[dict[str, Any]]) -> str:
    """In Markdown: both arms, their difference, and the verdict after Holm."""
    lines = ["| task | random | pretrained | difference | could have seen | verdict |", "|---|---|---|---|---|---|"]
    for one, row in zip(found, rows, strict=True):
        low, high = one.difference.low, one.difference.high
        interval = "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
        seen = row["minimum_detectable"]
        cells = [f"{one.baseline_score.value:.3f}", f"{one.arm_score.value:.3f}"]
        cells += [f"{one.difference.value:+.3f}{interval}", "" if seen is None else f"{seen:.3f}", row["verdict"]]
        lines.append(f"| {one.task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""How long does a linear probe take, and does it reach its optimum?

    python benchmarks/probe.py [--images 50000] [--features 512] [--classes 10] [--threads 2]

One fit at each strength of the grid, each from nothing, then the whole grid as the stage walks it, each fit starting
from the last. Features are drawn: a few directions that tell the classes apart, in noise that is correlated as real
features are. `gradient` is the largest entry of the mean loss's gradient at the end, computed here from the formula.
Writes `benchmarks/results/probe.json` and prints the table in Markdown. About two minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.record import write
from vision_mtl.evaluation.linear_probe import STRENGTHS, LinearProbe, fit_linear_probe, standardise

SEED = 0
DIRECTIONS = 64  # that features vary along beside their own noise
VALIDATION = 0.1  # share of further images to choose the strength on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    x, y = drawn_features(given.images, given.features, given.classes)
    with threadpool_limits(given.threads):
        rows = [measure(x, y, given, (strength,)) for strength in STRENGTHS] + [measure(x, y, given, STRENGTHS)]
    write("probe", {**vars(given), "seed": SEED, "rows": rows})
    print("| C | seconds | CPU seconds | gradient | validation accuracy |\n|---|---|---|---|---|")
    for row in rows:
        times = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f}"
        print(f"| {row['C']} | {times} | {row['gradient']:.1e} | {row['val_accuracy']:.3f} |")


def drawn_features(images: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised (n, D) and classes (n,): training images, then the validation images."""
    random = np.random.default_rng(SEED)
    count = images + int(VALIDATION * images)
    hidden = random.normal(size=(count, DIRECTIONS))
    y = (hidden @ random.normal(size=(DIRECTIONS, classes)) + 2 * random.gumbel(size=(count, classes))).argmax(1)
    x = hidden @ random.normal(size=(DIRECTIONS, features)) + random.normal(size=(count, features))
    return standardise(x, np.arange(images)), y


def measure(x: np.ndarray, y: np.ndarray, given: argparse.Namespace, strengths: tuple[float, ...]) -> dict[str, Any]:
    """Seconds of a fit for these strengths, the gradient it ends at, the accuracy on validation images."""
    n = given.images
    start, start_cpu = time.perf_counter(), time.process_time()
    probe = fit_linear_probe("single_label", x[:n], y[:n], x[n:], y[n:], num_outputs=given.classes, strengths=strengths)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    name = f"{probe.strength:g}" if len(strengths) == 1 else f"grid, {probe.strength:g} chosen"
    print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return {
        "C": name,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "gradient": gradient(probe, x[:n], y[:n]),
        "val_accuracy": probe.val_score,
    }


def gradient(probe: LinearProbe, x: np.ndarray, y: np.ndarray) -> float:
    """The largest entry of the gradient of the mean cross-entropy plus `weight**2 / (2 n C)`."""
    error = probe.predict(x)
    error[np.arange(len(y)), y] -= 1
    return float(abs(x.T @ error / len(y) + probe.weight / (len(y) * probe.strength)).max())


if __name__ == "__main__":
    main()

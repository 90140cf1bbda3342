"""How does the cost grow with image size, batch, images, tasks and cells?

    python benchmarks/scaling.py [--blocks 10] [--threads 2] [--clock wall] [--only step_by_size ...]

Each row varies one number and states the exponent: the slope of log seconds on log number, with the ends of its
interval over blocks. 1 is linear; a step against the size of the pool, and a damage against the number of its cells,
should be 0. `image_side` is quadratic where cost goes by pixels. Costs: a training step of the default mixture
(resnet18), one of the damage alone, the gathering of a batch, the search for near duplicates, the drawing of the sides.
Writes `benchmarks/results/scaling.json`. About five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
import torch

from benchmarks.interleave import CLOCKS, interleave
from benchmarks.record import write
from benchmarks.step import build
from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.duplicates import near_duplicates
from vision_mtl.data.pool import Pool
from vision_mtl.pretext.contract import PRETEXTS

Call = Callable[[], object]
SIDE, BATCH, IMAGES = 64, 32, 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in given.only:
        varied, expected, numbers, make = SERIES[name]
        calls = {str(number): make(number) for number in numbers}
        seconds = interleave(calls, blocks=given.blocks, warm_up=1, clock=given.clock)
        table = np.stack([seconds[str(number)] for number in numbers])  # (points, blocks)
        rows.append({"cost": name, "varies": varied, "expected": expected, **fitted(np.array(numbers), table)})
        print(line(rows[-1]), file=sys.stderr, flush=True)
    write("scaling", {"clock": given.clock, "image_side": SIDE, "batch": BATCH, "blocks": given.blocks, "rows": rows})
    print("| cost | against | exponent | expected | milliseconds |\n|---|---|---|---|---|")
    for row in rows:
        print(line(row))


def fitted(numbers: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    """The slope of log median seconds (points, blocks) on log numbers (points,), and its 95 % interval over blocks."""
    blocks = seconds.shape[1]
    drawn = np.random.default_rng(0).integers(blocks, size=(1000, blocks))
    medians = np.median(seconds[:, drawn], axis=-1)  # (points, resamples)
    slopes = np.polyfit(np.log(numbers), np.log(medians), 1)[0]
    low, high = np.quantile(slopes, [0.025, 0.975])
    median = np.median(seconds, axis=1)
    return {
        "numbers": numbers.tolist(),
        "seconds": median.tolist(),
        "exponent": float(np.polyfit(np.log(numbers), np.log(median), 1)[0]),
        "low": float(low),
        "high": float(high),
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    points = ", ".join(f"{n}: {1000 * s:.3g}" for n, s in zip(row["numbers"], row["seconds"], strict=True))
    slope = f"{row['exponent']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    return f"| {row['cost']} | {row['varies']} | {slope} | {row['expected']} | {points} |"


def drawn(images: int, side: int = SIDE) -> np.ndarray:
    """(N, H, W, 3) uint8 of coarse noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (images, side // 8, side // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def pool_of(images: int, side: int = SIDE) -> Pool:
    """A pool of drawn images, all for training."""
    names = [str(number) for number in range(images)]
    member, split, cluster = np.ones((images, 1), bool), np.zeros(images, np.int8), np.arange(images)
    return Pool([drawn(images, side)], names, [None] * images, ["drawn"], member, split, cluster, {}, [], {})


def step(**options: int) -> Call:
    """A training step."""
    pool = pool_of(options.pop("images", IMAGES), options.pop("side", SIDE))
    return build("resnet18", pool, **{"batch": BATCH, **options}).step


def damage(grid: int) -> Call:
    """One hidden cell of grid x grid, made and measured, for a batch of 256."""
    pretext, images = PRETEXTS.get("grid_mask")(grid=grid), torch.rand(256, 3, SIDE, SIDE)
    keys = Keys(0, 0, torch.arange(256))

    def call() -> None:
        draw = pretext.sample(keys, (3, SIDE, SIDE))
        pretext.loss(pretext.corrupt(images, draw), images, draw)

    return call


def gather(images: int) -> Call:
    """A batch of 256 from the pool."""
    pool = pool_of(images)
    rows = torch.from_numpy(np.random.default_rng(0).integers(images, size=256))
    return lambda: pool.gather(rows)


def batches(images: int) -> Call:
    """The numbers of the next step's images."""
    found, steps = Batches(torch.arange(images), BATCH, seed=0), iter(range(10**9))
    return lambda: found.at(next(steps))


def duplicates(images: int) -> Call:
    """The search for near duplicates of the whole pool."""
    pictures = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    return lambda: near_duplicates(pictures, {})


# name -> (what is varied, the exponent that the method asks for, its values, what is timed)
SERIES: dict[str, tuple[str, float, list[int], Callable[[int], Call]]] = {
    "step_by_side": ("image_side", 2, [32, 64, 128], lambda n: step(side=n)),
    "step_by_batch": ("batch", 1, [16, 32, 64, 128], lambda n: step(batch=n)),
    "step_by_images": ("images in the pool", 0, [2000, 16000, 64000], lambda n: step(images=n)),
    "step_by_heads": ("task heads beside", 0, [1, 4, 16], lambda n: step(heads=n)),
    "step_by_cells": ("cells a side", 0, [2, 4, 8], lambda n: step(grid=n)),
    "damage_by_cells": ("cells a side", 0, [2, 4, 8, 16], damage),
    "gather_by_images": ("images in the pool", 0, [2000, 16000, 64000], gather),
    "batch_by_images": ("images in the pool", 0, [10_000, 100_000, 1_000_000], batches),
    "near_duplicates": ("images in the pool", 2, [2000, 8000, 32000], duplicates),
}


if __name__ == "__main__":
    main()

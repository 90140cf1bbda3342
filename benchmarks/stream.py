"""Does streaming keep a training step fed, and does memory stay flat?

    python benchmarks/stream.py [--workers 1] [--blocks 20] [--threads 2]

JPEG files of 160 pixels (crops of the packaged photographs, quality 90) in uncompressed tar shards; resnet18 at 64
pixels, batch 128, the default mixture of three pretexts. Step by step, taking turns: the bound (the model's arithmetic
alone, `benchmarks/step.py`), the same images from the store, and the same images decoded while they are trained on. A
turn of the stream is over when its buffer is as full as it was at the start, so that nothing is decoded on the others'
time. By the wall clock, which sees waiting, and by the processor's, which sees what decoding costs on a busy machine,
too. Then the stream alone: images a second, and the memory of the process over several epochs. Writes
`benchmarks/results/stream.json`. Three minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import cv2
import numpy as np
import torch

from benchmarks.interleave import CLOCKS, interleave, shown, speed_ratio, summary
from benchmarks.record import write
from benchmarks.step import BATCH, SIDE, bound, build, one_step
from vision_mtl.data.batches import Batches
from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.sources.bundled import _photographs
from vision_mtl.training.loop import Trainer
from vision_mtl.training.repair import RepairFeed

IMAGES, FILE_SIDE, QUALITY, SHARDS = 4096, 160, 90, 4
STEPS = 3  # in one turn of each variant
READ_STEPS = 256  # of the stream alone: eight epochs
TARGET = 0.90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        bytes_per_file = write_files(Path(folder) / "shards")
        start = time.perf_counter()
        streamed = open_pool(folder, True, given.workers)
        first_look = time.perf_counter() - start
        start = time.perf_counter()
        stored = open_pool(folder, False, given.workers)
        store_seconds = time.perf_counter() - start
        rows = torch.arange(0, IMAGES, 17)
        assert np.array_equal(streamed.pixels(rows), stored.pixels(rows))
        timing = measure(stored, streamed, given.workers, given.blocks)
        reading = read_alone(streamed, given.workers)
    found = {"workers": given.workers, "image_size": SIDE, "batch": BATCH, "images": IMAGES,
             "file_side": FILE_SIDE, "bytes_per_file": bytes_per_file, "first_look_seconds": first_look,
             "store_seconds": store_seconds, "target": TARGET, **timing, "alone": reading}  # fmt: skip
    write("stream", found)
    print("| clock | | images/s | to the bound |\n|---|---|---|---|")
    for clock in CLOCKS:
        for name, values in timing[clock]["seconds"].items():
            ratio = shown(timing[clock]["to_bound"][name]) if name in timing[clock]["to_bound"] else ""
            print(f"| {clock} | {name} | {BATCH / values['median']:.0f} | {ratio} |")
    memory = reading["memory_mb"]
    print(f"the stream alone: {reading['images_per_second']:,.0f} images/s; memory {memory['first_epoch']:.0f} MB in "
          f"the first epoch, {memory['last_epoch']:.0f} in the last, {memory['most']:.0f} at most")  # fmt: skip
    print(f"before the first step: {first_look:.1f} s to look at every file, {store_seconds:.1f} s to store them")


def write_files(folder: Path) -> float:
    """The shards; returns the bytes of a file, on average."""
    random, pictures, size = np.random.default_rng(0), list(_photographs().values()), 0
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"train-{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(IMAGES // SHARDS):
                picture = pictures[random.integers(len(pictures))]
                top, left = (random.integers(side - FILE_SIDE) for side in picture.shape[:2])
                crop = picture[top : top + FILE_SIDE, left : left + FILE_SIDE, ::-1]
                data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
                about = tarfile.TarInfo(f"{number:06d}.jpg")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
                size += len(data)
    return size / IMAGES


def open_pool(folder: str, stream: bool, workers: int) -> Pool:
    """All images, for training."""
    sources = [f"wds/{folder}/shards/*.tar"]
    options = Data(unlabelled=sources, root=f"{folder}/root", stream=stream, num_workers=workers)
    return build_pool(options, {}, image_size=(SIDE, SIDE))


def measure(stored: Pool, streamed: Pool, workers: int, blocks: int) -> dict[str, Any]:
    """Seconds of a step of each, and their ratios, by either clock."""
    trainers = {"stored": build("resnet18", stored), "streamed": build("resnet18", streamed)}
    trainers["streamed"].feed = feed_of(streamed, workers)

    def turn(trainer: Trainer) -> None:
        for _ in range(STEPS):
            one_step(trainer)
        if trainer.feed.ahead is not None:
            trainer.feed.ahead.settle()

    alone = bound(build("resnet18", stored))
    variants = {"bound": lambda: [alone() for _ in range(STEPS)]}
    variants |= {name: lambda trainer=trainer: turn(trainer) for name, trainer in trainers.items()}
    found: dict[str, Any] = {"backbone": "resnet18", "precision": trainers["stored"].accelerator.mixed_precision}
    for clock in CLOCKS:
        seconds = interleave(variants, blocks=blocks, clock=clock, warm_up=1)
        found[clock] = {
            "seconds": {name: summary(values / STEPS) for name, values in seconds.items()},
            "to_bound": {name: speed_ratio(seconds, name, "bound") for name in trainers},
            "streamed_to_stored": speed_ratio(seconds, "streamed", "stored"),
        }
    trainers["streamed"].feed.close()
    return found


def feed_of(pool: Pool, workers: int) -> RepairFeed:
    """As `benchmarks/step.py` builds it, with so many threads."""
    return RepairFeed(pool, Batches(pool.indices("train"), BATCH, seed=0), 0, torch.device("cpu"), workers)


def read_alone(pool: Pool, workers: int) -> dict[str, Any]:
    """Batches as fast as they come, with the process's memory after each; an epoch is `IMAGES` / `BATCH` of them."""
    feed, memory = feed_of(pool, workers), []
    feed.at(0, 1)
    start = time.perf_counter()
    for step in range(1, READ_STEPS + 1):
        feed.at(step, 1)
        memory.append(resident_mb())
    seconds = time.perf_counter() - start
    feed.close()
    epoch = IMAGES // BATCH
    return {
        "images_per_second": READ_STEPS * BATCH / seconds,
        "epochs": READ_STEPS / epoch,
        "memory_mb": {
            "first_epoch": float(np.median(memory[:epoch])),
            "last_epoch": float(np.median(memory[-epoch:])),
            "most": max(memory),
        },
    }


def resident_mb() -> float:
    """Memory of this process, in MB of 1e6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()

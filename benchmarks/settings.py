"""Does a setting of the machine beat the default? A step of training under each, interleaved.

    python benchmarks/settings.py [--backbones resnet18 convnextv2_atto vit_tiny] [--blocks 30] [--threads 2]

One setting at a time differs from the default: AdamW's kernel, the allocator, the memory layout, half of the threads,
`torch.compile`. `again` is the default a second time: how far two equal variants differ. The step, its images and its
mixture are those of `step.py`. Writes `benchmarks/results/settings.json`. About ten minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import torch

from benchmarks.interleave import interleave, shown, speed_ratio, summary
from benchmarks.record import write
from benchmarks.step import BACKBONES, BATCH, SIDE, build, drawn_pool, one_step
from vision_mtl.core.memory import can_keep_freed_memory, keep_freed_memory
from vision_mtl.data.pool import Pool
from vision_mtl.training.loop import Trainer

GAIN = 1.05  # a setting is worth a default of its own from here on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pool = drawn_pool()
    rows = [measure(name, pool, given.blocks, given.threads) for name in given.backbones]
    write("settings", {"image_size": SIDE, "batch": BATCH, "gain": GAIN, "rows": rows})
    names = list(rows[0]["speed"])
    print(f"| backbone | default, images/s | {' | '.join(names)} |")
    print(f"|---|---|{'---|' * len(names)}")
    for row in rows:
        images = BATCH / row["seconds"]["default"]["median"]
        print(f"| {row['backbone']} | {images:.0f} | {' | '.join(shown(row['speed'][name]) for name in names)} |")


def measure(name: str, pool: Pool, blocks: int, threads: int) -> dict[str, Any]:
    """Seconds of a step under each setting, and its speed relative to the default."""
    default = build(name, pool)
    other = torch.contiguous_format if default.layout == torch.channels_last else torch.channels_last
    variants = {
        "default": variant(default, threads),
        "again": variant(build(name, pool), threads),
        "foreach kernel": variant(build(name, pool, kernel="foreach"), threads),
        "other layout": variant(build(name, pool, layout=other), threads),
        "half the threads": variant(build(name, pool), max(threads // 2, 1)),
        "compiled": variant(build(name, pool, compiled=True), threads),
    }
    if can_keep_freed_memory():
        variants["memory kept"] = variant(build(name, pool), threads, keep=True)
    seconds = interleave(variants, blocks=blocks, warm_up=3)
    keep_freed_memory(False)
    return {
        "backbone": name,
        "precision": default.accelerator.mixed_precision,
        "layout": str(default.layout).removeprefix("torch."),
        "seconds": {setting: summary(values) for setting, values in seconds.items()},
        "speed": {setting: speed_ratio(seconds, setting, "default") for setting in variants if setting != "default"},
    }


def variant(trainer: Trainer, threads: int, *, keep: bool = False) -> Callable[[], None]:
    """One step of `trainer` with the process set to `threads` and, where `keep`, freed memory kept."""

    def step() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if can_keep_freed_memory():
            keep_freed_memory(keep)
        one_step(trainer)

    return step


if __name__ == "__main__":
    main()

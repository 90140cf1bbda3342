"""How much faster is a plain ViT that encodes visible tokens only?

    python benchmarks/visible.py [--batch 128] [--blocks 30] [--threads 2] [--clock wall]

Forward and backward of vit_tiny (patch 8, 64 pixels) on all 64 tokens against the 16 that remain where 75 %
of a grid of 8 x 8 is hidden, and where one cell of a coarser grid is, whose borders are those of patches; in float32
and bfloat16. Features equal those of masked attention to 1e-5 (`tests/models/test_visible.py`). Writes
`benchmarks/results/visible.json`. About five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import torch

from benchmarks.interleave import CLOCKS, interleave, shown, speed_ratio, summary
from benchmarks.record import write
from vision_mtl.core.rng import Keys
from vision_mtl.models.attention import choose_attention
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.visible import hidden_tokens
from vision_mtl.pretext.grid_mask import GridMask

SIDE = 64
MASKS = {
    "75 % of 8 x 8": GridMask(grid=8, hidden="ratio", ratio=0.75),
    "one cell of 2 x 2": GridMask(grid=2),
    "one cell of 4 x 4": GridMask(grid=4),
}
TARGETS = {"fp32": 3.0, "bf16": 2.5}  # of the first mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    backbone = Backbone("vit_tiny_patch16_224", kwargs={"patch_size": 8}, image_size=(SIDE, SIDE))
    choose_attention(backbone, torch.device("cpu"), positions=64)  # as a training run does
    rows = [measure(backbone, precision, given) for precision in TARGETS]
    write("visible", {"clock": given.clock, "image_size": SIDE, "batch": given.batch, "targets": TARGETS, "rows": rows})
    print(f"| precision | all tokens, images/s | {' | '.join(MASKS)} |\n|---|---|{'---|' * len(MASKS)}")
    for row in rows:
        images = given.batch / row["seconds"]["all"]["median"]
        print(f"| {row['precision']} | {images:.0f} | {' | '.join(shown(r) for r in row['to_all'].values())} |")


def measure(backbone: Backbone, precision: str, given: argparse.Namespace) -> dict[str, Any]:
    """All tokens against the visible ones under each mask."""
    images = torch.rand(given.batch, 3, SIDE, SIDE)
    keys = Keys(0, 0, torch.arange(given.batch))
    half = precision == "bf16"
    autocast = (lambda: torch.autocast("cpu", torch.bfloat16)) if half else nullcontext
    variants = {"all": encode(backbone, images, None, autocast)}
    for name, pretext in MASKS.items():
        mask = pretext.mask(pretext.sample(keys, (3, SIDE, SIDE)), (3, SIDE, SIDE))
        variants[name] = encode(backbone, images, hidden_tokens(mask, backbone.map_sizes[-1]), autocast)
    seconds = interleave(variants, blocks=given.blocks, warm_up=1, clock=given.clock)
    return {
        "precision": precision,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "to_all": {name: speed_ratio(seconds, name, "all") for name in MASKS},
    }


def encode(
    backbone: Backbone,
    images: torch.Tensor,
    hidden: torch.Tensor | None,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Callable[[], None]:
    """Forward and backward of the encoder."""

    def call() -> None:
        backbone.zero_grad(set_to_none=True)
        with autocast():
            maps = backbone(images, hidden)
        maps[-1].float().square().mean().backward()

    return call


if __name__ == "__main__":
    main()

"""How long does discovery take to score every damage of many images?

    python benchmarks/scoring.py [--images 1000] [--backbone resnet18] [--threads 2]

Every image under each of the 16 cells of a 4 x 4 grid: damage, the network's repair, the rules' repairs, errors; and
the rules' fitting before it. 64 pixels, the precision that `pretrain` takes here. `network` is the pass of
`model_errors`, which repairs with the network alone, as `discover.online` does on its way. Phases are shares of the
whole pass. Writes `benchmarks/results/scoring.json`. About a minute on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import torch

from benchmarks.record import write
from benchmarks.step import drawn_pool, timed
from vision_mtl.data.pool import Pool
from vision_mtl.discovery import measure, rule_errors
from vision_mtl.discovery.folds import fold_images
from vision_mtl.discovery.measure import ScoredNetwork, measure_damages, model_errors
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.options import Runtime
from vision_mtl.training.repair import head_specs

SIDE, GRID, FITTED = 64, 4, 2000
NAME = "grid_mask"
TARGET_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = [run(given) for _ in range(given.passes)]
    whole = sorted(found, key=lambda f: f["seconds"])[len(found) // 2]
    write(
        "scoring",
        {
            **vars(given),
            "grid": GRID,
            "image_size": SIDE,
            "target_seconds": TARGET_SECONDS,
            "median": whole,
            "all": found,
        },
    )
    print(
        f"{given.images} images, {GRID * GRID} cells: {whole['seconds']:.1f} s (network alone {whole['network']:.1f} s)"
    )
    print(", ".join(f"{name} {share:.0%}" for name, share in whole["phases"].items()))


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one pass over all damages, the phases' shares of it, and of the network alone."""
    pool, judged = drawn_pool(), build(given.backbone)
    judged = ScoredNetwork(judged.model, pool, judged.mixture, judged.autocast)
    indices = torch.arange(FITTED, FITTED + given.images)
    spent: dict[str, list[float]] = defaultdict(list)
    parts = {"fit rules": (rule_errors, "fit_rules"), "network": (measure, "predict_part")}
    start = time.perf_counter()
    with timed(parts, spent, time.perf_counter):
        training = fold_images(pool, torch.arange(FITTED), torch.device("cpu"))
        measure_damages(judged, NAME, indices, training, fold=0)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    model_errors(judged, NAME, indices)
    network = time.perf_counter() - start
    shares = {name: sum(values) / seconds for name, values in spent.items()}
    return {"seconds": seconds, "network": network, "phases": {**shares, "rest": 1 - sum(shares.values())}}


def build(name: str, pool: Pool | None = None) -> ScoredNetwork:
    """A network as `pretrain` builds it, in the mode that it is scored in."""
    torch.manual_seed(0)
    runtime = Runtime()
    pretexts = {NAME: PRETEXTS.get(NAME)(grid=GRID)}
    net = Backbone(name, image_size=(SIDE, SIDE))
    decoder = DECODERS.get("stages")().build(MapSpec(net.channels, net.map_sizes, net.image_size))
    model = SharedModel(net, decoder, head_specs(pretexts, 3)).to(memory_format=runtime.layout(net))
    return ScoredNetwork(model, pool or drawn_pool(), Mixture(pretexts), runtime.accelerator("auto").autocast)


if __name__ == "__main__":
    main()

"""Ours against lightly 1.6: images a second, and what is learnt in equal processor time with equally many settings.

    pip install lightly==1.6.0 stable-pretraining==0.1.8  # the second only for `speed`, and may be left out
    python benchmarks/peers.py speed [--blocks 30]
    python benchmarks/peers.py search [--seconds 60] [--jobs 2]
    python benchmarks/peers.py judge [--budgets 60 600] [--seeds 5 3] [--jobs 2] [--again]

`speed` (5 minutes on 2 free cores): a step of each method, data included, interleaved: resnet18 that repairs the
default mixture or contrasts two views, against lightly's SimCLR by the same setting, and a masked autoencoder of
vit_tiny (patch 8, 75 % hidden, decoder of width 128) against lightly's and, where it is installed, stable-pretraining's
(`stable_mae`). 64 pixels, batch 128, the machine's precision for all. Batches of peers come from their own transforms
in a DataLoader of 2 workers.

`search` (about 50 minutes of two cores) trains every setting of `peer_grid.py`, eight of ours and eight of each of
lightly's SimCLR, VICReg and EMP-SSL, with one seed that `judge` does not use. It chooses for each library the setting
of the highest mean accuracy in cross-validation over training and validation images. Every training gets `--seconds` of
two cores, as twice that processor time in one thread, in steps: the time of a step of each method is measured first,
interleaved, which takes five minutes and needs an otherwise idle machine. lightly transforms images one by one on the
CPU, as its users do, and that counts; `data_share` in the result says how much it was. Three references are scored and
cannot be chosen: our default mixture, lightly's SimCLR with its own defaults and SGD, and lightly's EMPSSLLoss as it
is, whose sign is the opposite of the paper's.

`judge` (about 90 minutes of two cores) opens the test images of the chosen two and of random weights at both budgets,
over paired seeds: linear probes on all labels, and fine-tuning on a tenth of them; ours against lightly with Holm's
correction over the sixteen comparisons, and the mean over tasks with its interval. The test images of these splits are
judged once; `--again` repeats it, and the result lists each look. Finished trainings are not repeated: run the same
command again to resume. All write `benchmarks/results/peers.json`; commit before, so that the result names a commit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np

from benchmarks import peer_contest as contest
from benchmarks.interleave import interleave, shown, speed_ratio, summary
from benchmarks.peer_grid import BATCH, LIGHTLY, MIXTURE, OURS, Arm, Setting, our_options
from benchmarks.peer_runs import SIDE, open_data, our_trainer, settings
from benchmarks.record import path_of, write
from vision_mtl.core.environment import environment
from vision_mtl.recipes.repair import training_images

MASKED_VIT = {
    "backbone": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8}},
    "decoder": {"name": "transformer", "width": 128, "depth": 1, "num_heads": 4},
    "pretexts": {"grid_mask": {"grid": 8, "hidden": "ratio", "ratio": 0.75, "residual": False}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "search", "judge"))
    parser.add_argument("--blocks", type=int, default=30, help="of speed: turns of each method")
    parser.add_argument("--seconds", type=float, default=60.0, help="of search: each training's seconds of two cores")
    parser.add_argument("--budgets", type=float, nargs="+", default=[60.0, 600.0], help="of judge: as --seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 3], help="of judge: paired seeds at each budget")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--again", action="store_true", help="of judge: look at the same test images once more")
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), help="folder of the trainings")
    given = parser.parse_args()
    if find_spec("lightly") is None:
        raise SystemExit("lightly is not installed: pip install lightly==1.6.0")
    if len(given.seeds) != len(given.budgets):
        raise SystemExit(f"--seeds needs one number for each of {len(given.budgets)} budgets; found {given.seeds}")
    result = path_of("peers", environment()["commit"])
    before = json.loads(result.read_text()) if result.exists() else {}
    if given.what == "speed":
        found = speed(given.blocks)
    elif given.what == "search":
        found = contest.search(given.seconds, given.jobs, given.runs)
    else:
        budgets = list(zip(given.budgets, given.seeds, strict=True))
        found = contest.judge(budgets, given.jobs, given.runs, before, given.again)
    write("peers", found, part=given.what)


def speed(blocks: int) -> dict[str, Any]:
    """Return the rate of each method and the ratios that are claimed, and print them."""
    from benchmarks.lightly_methods import WORKERS, contrast_views, mae

    pool, two_views = open_data(), Setting(views=2, view_size=SIDE)
    indices = training_images(settings({}), pool)

    def ours(own: dict[str, Any]) -> Callable[[], object]:
        return our_trainer(settings(own), pool).step

    contrast = ours(our_options(Arm(OURS, OURS, two_views)))
    plain, masked = contrast_views(pool, indices, 0, Arm(LIGHTLY, LIGHTLY, two_views), WORKERS), mae(pool, indices, 0)
    groups: list[tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]] = [
        ({"simclr": lambda: plain.step(0.5)}, {"mixture": ours(our_options(MIXTURE)), "contrast": contrast}),
        ({"mae": lambda: masked.step(0.5)}, {"masked_vit": ours(MASKED_VIT)}),
    ]
    if find_spec("stable_pretraining") is None:
        print("stable_mae is left out: pip install stable-pretraining==0.1.8", file=sys.stderr)
    else:
        from benchmarks.stable_methods import StableMAE

        groups[1][0]["stable_mae"] = StableMAE(pool, indices, 0).step
    rates, ratios = {}, {}
    for rivals, own in groups:
        seconds = interleave({**rivals, **own}, blocks=blocks)
        for name, values in seconds.items():
            rates[name] = {**summary(values), "images_per_second": BATCH / float(np.median(values))}
            print(f"{name:20s} {rates[name]['images_per_second']:7.0f} images/s")
        ratios |= {f"{name} to {peer}": speed_ratio(seconds, name, peer) for peer in rivals for name in own}
    for name, ratio in ratios.items():
        print(f"{name}: {shown(ratio)}")
    return {"rates": rates, "ratios": ratios, "batch": BATCH, "image_size": SIDE, "workers": WORKERS}


if __name__ == "__main__":
    main()

"""What does a newcomer's first command do, and how long does each of its phases take?

    python benchmarks/first_run.py [--seeds 0 1 2] [--folder runs/first]

Runs `train.py --stage pretrain` for each seed, in a process of its own. The first seed has an empty data folder, as on
a new machine; the others find the decoded images. Times every phase that the console names: a phase lasts until the
next one is named, `starting` until the first, and what follows the last line on the console is `ending`. Writes
`benchmarks/results/first_run.json`: of each seed the phases' seconds, the features before and after training, and what
was learned to repair; of the first seed also what it printed, which the README quotes. With `--picture_steps N` a
network is also trained on repairs alone for N steps of 16 images, and `docs/images/repairs.jpg` is drawn from its
`figures/repairs.png`. On an otherwise idle machine; three minutes a seed on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py

from benchmarks.record import changed_options, write
from vision_mtl.config.resolve import resolve

ROOT = Path(__file__).resolve().parent.parent

# `train.py` with a line of progress five times a second instead of every 15 seconds
FINE = """
import sys
from vision_mtl.training.progress import ProgressLine
from vision_mtl.cli.command import main
ProgressLine.PLAIN_SECONDS = 0.2
sys.exit(main(sys.argv[1:]))
"""
LINE = re.compile(r"^ *\d+%  ([^:(,0-9]+)")  # share and name of a phase; what follows is its detail
PICTURE_WIDTH = 1000  # pixels
REPAIRS_ALONE = ["--pretexts.contrast.weight", "0", "--optim.batch_size", "16", "--decoder.drop_ratio", "0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/first"))
    parser.add_argument("--picture_steps", type=int, default=0)
    given = parser.parse_args()
    found = {}
    for seed in given.seeds:
        found[str(seed)] = run(seed, given.folder)
        print(json.dumps({key: found[str(seed)][key] for key in ("seconds", "phases")}, indent=1), flush=True)
    first = given.folder / f"seed-{given.seeds[0]}"
    if given.picture_steps:
        draw_picture(given.seeds[0], given.folder, given.picture_steps)
    config = resolve("pretrain", {}, {})
    split_hash = json.loads((first / "result.json").read_text("utf-8"))["data"]["split_hash"]
    splits = {"split_hash": split_hash, "split_options": changed_options(config.data, config.tasks)}
    write("first_run", {"seeds": found}, splits=splits)


def draw_picture(seed: int, folder: Path, steps: int) -> None:
    """Train repairs alone for `steps` steps and write the picture of repairs that the README shows."""
    where = folder / f"picture-{seed}"
    words = ["--stage", "pretrain", "--seed", str(seed), "--data.root", str(folder / "data"), "--run_dir", str(where)]
    words += [*REPAIRS_ALONE, "--optim.steps", str(steps)]
    subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True)
    with Image.open(where / "figures" / "repairs.png") as drawn:
        size = PICTURE_WIDTH, round(drawn.height * PICTURE_WIDTH / drawn.width)
        drawn.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(ROOT / "docs/images/repairs.jpg", quality=88)


def run(seed: int, folder: Path) -> dict[str, Any]:
    """Run the command with one seed; return its seconds, those of each phase, its scores and what it printed."""
    where = folder / f"seed-{seed}"
    words = ["--stage", "pretrain", "--seed", str(seed), "--data.root", str(folder / "data")]
    words += ["--run_dir", str(where), "--console", "plain"]
    start = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-c", FINE, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None and command.stderr is not None
    changes, last = [(0.0, "starting")], 0.0
    for line in command.stderr:
        if (match := LINE.match(line)) and match[1].strip() != changes[-1][1]:
            changes.append((time.perf_counter() - start, match[1].strip()))
        last = time.perf_counter() - start
    printed = command.stdout.read()
    if command.wait():
        raise SystemExit(f"seed {seed} failed: see {where}")
    whole = time.perf_counter() - start
    changes += [(last, "ending"), (whole, "")]
    phases: dict[str, float] = {}
    for (begun, name), (ended, _) in itertools.pairwise(changes):
        phases[name] = round(phases.get(name, 0.0) + ended - begun, 2)
    result = json.loads((where / "result.json").read_text("utf-8"))
    metrics = {key: result["metrics"][key] for key in ("features", "skill_learned_by_source", "skill_learned")}
    return {
        "seconds": whole,
        "training_seconds": result["seconds"],
        "images_seen": result["images_seen"],
        "phases": phases,
        **metrics,
        "printed": printed,
    }


if __name__ == "__main__":
    main()

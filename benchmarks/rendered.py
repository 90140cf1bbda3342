"""Are the rendered sets what they claim: out of a linear model's reach, within a supervised network's?

    python benchmarks/rendered.py [--steps 600] [--sets cars pets] [--folder FOLDER]
    python benchmarks/rendered.py --sheet docs/images/rendered.jpg

For each of `rendered/cars|faces|pets`: test accuracy of logistic regression on the 64-pixel pixels (strength chosen on
validation images) beside the majority's, and of a resnet18 from random weights, trained on that set alone by `--stage
finetune` for 600 steps of 64 images. Counted in steps, so that a busy machine changes nothing. Also the seconds, of the
clock and of all processor cores, in which a set is drawn and stored the first time. Prints a table and writes
`benchmarks/results/rendered.json`. About 9 minutes of one core; with `--folder` an interrupted benchmark continues.

`--sheet` draws 64 images instead, the first ones of each class.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py

import numpy as np
from PIL import Image

from benchmarks.record import splits_of, write
from vision_mtl.cli.command import main as command
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.source import open_source
from vision_mtl.evaluation.linear_probe import fit_linear_probe
from vision_mtl.evaluation.scores import accuracy_score

SETS = ("cars", "faces", "pets")
SIDE = 64  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--folder", help="keep images and runs there; by default they are deleted")
    parser.add_argument("--sheet", metavar="FILE")
    given = parser.parse_args()
    if given.sheet:
        Image.fromarray(sheet()).save(given.sheet, quality=85)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.sets:
            rows[name] = measured(name, given.folder or temporary, given.steps)
            print(name, json.dumps(rows[name]), flush=True)
    print(table(rows))


def measured(name: str, folder: str, steps: int) -> dict[str, Any]:
    """Return and write the scores of one set."""
    tasks = {name: Task(source=f"rendered/{name}")}
    with tempfile.TemporaryDirectory() as empty:
        data = Data(root=empty)
        start, start_cpu = time.perf_counter(), sum(os.times()[:4])
        pool = build_pool(data, tasks, image_size=(SIDE, SIDE))
        seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - start_cpu  # with child processes
    row = {"steps": steps, "images": len(pool)}
    row |= {"build_seconds": round(seconds, 1), "build_cpu_seconds": round(cpu_seconds, 1)}
    row |= {"pixels": linear(name, pool), "resnet18": supervised(name, folder, steps)}
    write("rendered", row, part=name, splits=splits_of(pool, data, tasks))
    return row


def sheet() -> np.ndarray:
    """Return 64 images (8 * 96, 8 * 96, 3): three rows of cars, three of faces, two of pets."""
    images = []
    for name, count in (("cars", 24), ("faces", 24), ("pets", 16)):
        source = open_source(f"rendered/{name}", Path())
        items = source.items()
        firsts = sorted(items, key=lambda item: item.identity.rpartition("/")[2])  # the first of each class, and so on
        images += [source.read(item) for item in firsts[:count]]
    return np.concatenate([np.concatenate(images[i : i + 8], 1) for i in range(0, 64, 8)])


def linear(name: str, pool: Pool) -> dict[str, Any]:
    """Return the accuracy of logistic regression on pixels, and the majority's: of the commonest training class."""
    sides = {side: pixels(pool, side, name) for side in ("train", "val", "test")}
    probe = fit_linear_probe("single_label", *sides["train"], *sides["val"], num_outputs=len(pool.class_names[name]))
    x, true = sides["test"]
    said = probe.predict(x).argmax(1)
    score = accuracy_score(said == true, np.arange(len(true)))
    return {**score.to_json(), "majority": float((true == np.bincount(sides["train"][1]).argmax()).mean())}


def pixels(pool: Pool, side: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    """((n, D) standardised roughly, (n,) classes)."""
    indices = pool.indices(side, task=task)
    images = pool.gather(indices).flatten(1).numpy()
    return (images - 0.5) / 0.25, pool.labels[task][indices.numpy()]


def supervised(name: str, root: str, steps: int) -> dict[str, Any]:
    """Test accuracy of a resnet18 trained on the set alone."""
    run = Path(root) / f"run-{name}"
    words = ["--stage", "finetune", "--run_dir", str(run), "--data.root", root, "--image_size", str(SIDE)]
    words += [f"--tasks.{name}.source", f"rendered/{name}", f"--tasks.{name}.augment", "mirror"]
    if command([*words, "--optim.steps", str(steps), "--runtime.num_threads", "1"]) != 0:
        raise SystemExit(f"training on rendered/{name} failed")
    return json.loads((run / "result.json").read_text())["metrics"]["tasks"][name]["accuracy"]


def table(rows: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| set | majority | linear on pixels | resnet18, supervised |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = [f"{row[m]['value']:.3f} ({row[m]['low']:.3f} to {row[m]['high']:.3f})" for m in ("pixels", "resnet18")]
        lines.append(f"| rendered/{name} | {row['pixels']['majority']:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

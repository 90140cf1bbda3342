"""How good are linear probes of packaged ImageNet weights and of random weights, at the images' size and enlarged?

    python benchmarks/weights.py TASKS.yaml [--backbones tf_efficientnet_lite0 resnet18] [--sizes 0 128]
        [--related TASK ...] [--fractions 0.1 1.0]

TASKS.yaml is a config file with `tasks`, `data` and `image_size`. Each backbone is probed by `--stage probe` at each
`backbone.input_size`: layer, pooling and strength are chosen on validation images, accuracies are on test images. One
without packaged weights is probed with random ones. `--related` marks tasks whose images may be among those that the
weights were trained on: their figures are not independent. Writes `benchmarks/results/weights.json` and prints the
table. A probe of 5,000 images takes about a minute on 2 cores at 64 pixels, three at 128.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if Path(sys.path[0]).name == "benchmarks":
    sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl as vm
from benchmarks.record import write
from vision_mtl.models.weights import packaged_file

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="TASKS.yaml")
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[0, 128], help="backbone.input_size; 0: the images' own"
    )
    parser.add_argument(
        "--related", nargs="*", default=[], help="tasks whose images resemble the weights' training set"
    )
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.1, 1.0])
    given = parser.parse_args()
    results = [probe(given, name, size) for name in given.backbones for size in given.sizes]
    found = [row for one in results for row in one["rows"]]
    splits = {"split_hash": results[0]["split_hash"]}
    write("weights", {"seed": SEED, "related": given.related, "rows": found}, splits=splits)
    print("| backbone | weights | input | task | labels | accuracy | 95 % interval | n |\n" + "|---" * 8 + "|")
    for row in found:
        mark = " (not independent)" if row["related"] else ""
        names = f"{row['backbone']} | {row['weights']} | {row['input_size'] or 'own'} | {row['task']}{mark}"
        interval = "none" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"| {names} | {row['fraction']} | {row['value']:.3f} | {interval} | {row['n']} |")


def probe(given: argparse.Namespace, name: str, size: int) -> dict[str, Any]:
    """Probe a backbone at one size; return the rows of its weights, of random ones, and the hash of the splits."""
    is_packaged = packaged_file(name) is not None
    with tempfile.TemporaryDirectory() as folder:
        vm.run_stage(
            "probe",
            run_dir=Path(folder) / "run",
            config=given.config,
            backbone={"name": name, "pretrained": is_packaged, "input_size": size},
            fractions=given.fractions,
            heads=False,
            embedding_images=0,
            seed=SEED,
        )
        result = json.loads((Path(folder) / "run" / "result.json").read_text("utf-8"))
    methods = {"linear": "ImageNet", "linear_random_init": "random"} if is_packaged else {"linear": "random"}
    by_fraction = {"1": result["metrics"], **result["metrics"]["fractions"]}
    rows = [
        {"backbone": name, "weights": weights, "input_size": size, "task": task, "fraction": fraction}
        | {"related": weights == "ImageNet" and task in given.related, **scores[method]["accuracy"]}
        for fraction, metrics in by_fraction.items()
        for task, scores in metrics["tasks"].items()
        for method, weights in methods.items()
    ]
    return {"rows": rows, "split_hash": result["data"]["split_hash"]}


if __name__ == "__main__":
    main()

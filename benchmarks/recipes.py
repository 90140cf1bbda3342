"""Which recipe of pretraining gives the best features? Named settings, equal images and seeds, no test image.

    python benchmarks/recipes.py benchmarks/recipes/LIST.yaml [--jobs 2] [--only TEXT ...] [--table]

The list gives `images`, `seeds`, `options` of every setting, and `settings`: name -> options of `--stage pretrain`.
`images: 0` leaves a network as it starts. A setting with `finetune` (options of `--stage finetune`) is fine-tuned on
`label_fraction` of the labels instead of probed; one with `score_repairs` is scored on what it learned to repair, too.
The images are those of five tasks and 1,500 unlabelled photographs, with 30 % for validation, so that fewer differences
are chance; with `images_of: packaged` in the list, those of the default run. Ridge probes of each map are fitted on at
most 1,000 training images of a task, and on a tenth of those (drawn five times); their strength is chosen by
leave-one-out. Scores are of at most 500 validation images of a task. Writes `benchmarks/results/recipes.json`, one
entry for each setting and seed. An entry that is on file with equal options is not measured again. Prints the table in
Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
from joblib import Parallel, delayed

from benchmarks.recipe_runs import PHOTOGRAPHS, measure, open_splits
from benchmarks.record import metadata, path_of, write
from benchmarks.tables import markdown
from benchmarks.tables_recipes import JUDGED, mean_score, setting_names, trials
from vision_mtl.config.yaml_files import read_config
from vision_mtl.study.arms import merge

Rows = dict[str, dict[str, Any]]  # key -> entry of the result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="measure settings whose name contains one of these")
    parser.add_argument("--table", action="store_true", help="print the table of what is on file, measure nothing")
    given = parser.parse_args()
    lists = [read_list(path) for path in given.lists]
    if not given.table:
        in_turn = [row for rows in itertools.zip_longest(*(rows.items() for rows in lists)) for row in rows if row]
        run(dict(in_turn), given.only, given.jobs)
    for path in given.lists:
        print(markdown(trials(on_file(), path.stem, setting_names(path))), flush=True)


def read_list(path: Path) -> Rows:
    """Return key -> what to measure, for every setting and seed of a list, one seed after the other."""
    found = read_config(path)
    rows = {}
    for seed in found["seeds"]:
        for name, own in found["settings"].items():
            options = merge(found.get("options", {}), own or {})
            images = options.pop("images", found["images"])
            row = {"setting": name, "images": images, "seed": seed, "options": options}
            row |= {"plugins": found.get("plugins", []), "images_of": found.get("images_of", PHOTOGRAPHS)}
            rows[f"{path.stem}/{name}/{seed}"] = row
    return rows


def run(asked: Rows, only: list[str], jobs: int) -> None:
    """Measure what is not on file, and write each entry when it is there."""
    known = on_file()
    older = {"images_of": PHOTOGRAPHS}  # of entries that do not name it
    due = {k: row for k, row in asked.items() if any((older | known.get(k, {})).get(n) != v for n, v in row.items())}
    due = {key: row for key, row in due.items() if not only or any(text in row["setting"] for text in only)}
    splits = {kind: open_splits(kind) for kind in {row["images_of"] for row in due.values()}}
    work = (delayed(measure)(key, row) for key, row in due.items())
    for key, found in Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs)(work):
        write("recipes", found, part=key, splits=splits[found["images_of"]])
        print(f"{key}: {', '.join(f'{n} {mean_score(found, n):.3f}' for n in JUDGED if n in found)}", flush=True)


def on_file() -> Rows:
    """Return the entries that this commit may add to."""
    path = path_of("recipes", metadata()["commit"])
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


if __name__ == "__main__":
    main()

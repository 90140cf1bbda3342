"""What did training add to repairs, over seeds? The skill learned of finished pretraining runs.

    python benchmarks/repairs.py RUN RUN ... [--score_again]

RUN are folders of `--stage pretrain`, one per seed, of one recipe; the runs of a study are below its `runs/`. For each
pretext, over all sources and for each of them: the mean of `skill_learned` (docs/results.md), a t-interval over the
seeds, and how many of the runs called it learned, which takes clusters enough for an interval. Refuses runs of
different splits, recipes or commits, two of one seed, and runs of uncommitted code. `--score_again` scores the runs'
weights with this version, if `skill_learned` has changed since; that takes a minute or two a run. Writes
`benchmarks/results/repairs.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if Path(sys.path[0]).name == "benchmarks":
    sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import torch
from joblib import Parallel, delayed

from benchmarks.record import changed_options, is_committed, write
from benchmarks.tables import markdown
from benchmarks.tables_studies import repairs
from vision_mtl.api.loaded_run import load_run
from vision_mtl.config.resolve import resolve, with_added
from vision_mtl.config.yaml_files import read_config
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.recipes.build import build_pretexts
from vision_mtl.recipes.repair import build_network
from vision_mtl.study.learned import mean_over_runs

ALL = "all"
Run = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--score_again", action="store_true", help="score the weights with this version")
    given = parser.parse_args()
    runs = [read_run(folder) for folder in given.runs]
    check(runs)
    if given.score_again:
        scores = Parallel(os.cpu_count(), verbose=5)(delayed(score_again)(folder) for folder in given.runs)
        runs = [{**run, "metrics": found} for run, found in zip(runs, scores, strict=True)]
    found = {"rows": rows(runs), "runs": [summary(run) for run in runs], "scored_again": given.score_again}
    write("repairs", found, splits=splits(runs[0]))
    print(markdown(repairs(found)))


def read_run(folder: Path) -> dict[str, Any]:
    """Return the result, the environment and the config of a finished pretraining run."""
    try:
        result, environment = (json.loads((folder / f"{n}.json").read_text("utf-8")) for n in ("result", "environment"))
    except OSError as error:
        raise SystemExit(f"{folder} is not the folder of a finished run: {error}") from error
    if result["stage"] != "pretrain" or result["status"] != "completed":
        raise SystemExit(f"{folder} must be a completed pretraining run; found {result['stage']}, {result['status']}")
    if not result["metrics"].get("skill_learned"):
        raise SystemExit(f"{folder} has no skill_learned: train it again with this version")
    return {"folder": folder, **result, "environment": environment, "config": read_config(folder / "config.yaml")}


def score_again(folder: Path) -> dict[str, Any]:
    """Return the skills of a run's weights as `--stage pretrain` of this version measures them, in one thread."""
    torch.set_num_threads(1)
    run = load_run(folder, "cpu")
    config = resolve("pretrain", run.config, {})
    pretexts = build_pretexts(config)
    with torch.no_grad():
        start, num_images = build_network(config, pretexts), with_added("score", run.config.get("score", {}))["images"]
        return score_pretexts(run.model.eval(), run.pool, Mixture(pretexts), start=start, num_images=num_images)


def check(runs: Sequence[Run]) -> None:
    """Stop unless the runs are one recipe on the same splits, each with another seed, of one commit without changes."""
    first = runs[0]
    for run in runs:
        commit = run["environment"]["commit"]
        if not is_committed(commit):
            raise SystemExit(
                f"{run['folder']} was run with uncommitted changes (commit: {commit}): commit, run it again"
            )
        for what, value, expected in (
            ("commit", commit, first["environment"]["commit"]),
            ("data.split_hash", run["data"].get("split_hash"), first["data"].get("split_hash")),
            ("recipe", recipe(run), recipe(first)),
        ):
            if value != expected or value is None:
                raise SystemExit(f"{run['folder']} and {first['folder']} must have the same {what}; found {value}")
    twice = [seed for seed, count in Counter(run["seed"] for run in runs).items() if count > 1]
    if twice:
        raise SystemExit(f"runs must have different seeds; found more than one run of seed {twice[0]}")


def recipe(run: Run) -> dict[str, Any]:
    """Return the config without the seed and what changes no result."""
    return {key: value for key, value in run["config"].items() if key not in ("seed", "run_dir", "console", "runtime")}


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each pretext on all images, if there are several sources, and on those of each source."""
    metrics = runs[0]["metrics"]
    by_source = metrics["skill_learned_by_source"]
    tables = {ALL: metrics["skill_learned"], **by_source} if len(by_source) > 1 else by_source
    return [
        row(runs, source, pretext)
        for pretext in metrics["skill_learned"]
        for source in tables
        if pretext in tables[source]
    ]


def row(runs: Sequence[Run], source: str, pretext: str) -> dict[str, Any]:
    """Return the mean over the seeds, its t-interval, and how many runs called the pretext learned."""
    scores = [learned(run, source, pretext) for run in runs]
    values = [score["value"] for score in scores]
    mean = mean_over_runs(values)
    references = list(dict.fromkeys(reference_text(score["reference"]) for score in scores))
    return {
        **{"pretext": pretext, "source": source, "reference": " or ".join(references)},
        **{"value": mean.value, "low": mean.low, "high": mean.high},
        **{"num_seeds": len(runs), "num_learned": sum(bool(score["learned"]) for score in scores)},
        "num_judged": sum(score["low"] is not None for score in scores),  # the others have too few clusters
        **{"n": scores[0]["n"], "num_clusters": scores[0]["num_clusters"], "values": values},
    }


def reference_text(reference: str | Mapping[str, str]) -> str:
    """Return the best rule; with several sources each has its own."""
    return reference if isinstance(reference, str) else "the best rule of each source"


def learned(run: Run, source: str, pretext: str) -> dict[str, Any]:
    """Return the score of one run; stops if it has none."""
    metrics = run["metrics"]
    table = metrics["skill_learned"] if source == ALL else metrics["skill_learned_by_source"].get(source, {})
    if pretext not in table:
        raise SystemExit(f"{run['folder']} has no skill_learned of {pretext} on {source}")
    return table[pretext]


def summary(run: Run) -> dict[str, Any]:
    """Return what a run was: seed, command, commit, images seen, seconds."""
    environment = run["environment"]
    keys = ("command", "commit", "machine", "cpus", "processor", "device")
    own = {key: run[key] for key in ("seed", "images_seen", "seconds")}
    return {**own, **{key: environment.get(key) for key in keys}}


def splits(run: Run) -> dict[str, Any]:
    """Return the hash of the runs' splits, and the options that open them again."""
    config = resolve("pretrain", dict(run["config"]), {})
    return {"split_hash": run["data"]["split_hash"], "split_options": changed_options(config.data, config.tasks)}


if __name__ == "__main__":
    main()

"""Search and judge of `peers.py`: every setting trained and scored, one of each library chosen, and these compared.

A budget of T seconds means T seconds of two cores, so each training gets 2 T processor seconds in one thread.
"""
# S seeds, n test images

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
import torch
from joblib import Parallel, delayed

from benchmarks import peer_scores
from benchmarks.peer_grid import ARMS, LIGHTLY, OURS, UNTRAINED, Arm, choose
from benchmarks.peer_runs import SPLIT_SEED, open_data, pretrained, record_of, seconds_per_step, settings
from benchmarks.peer_scores import TASKS
from benchmarks.record import splits_of
from vision_mtl.core.files import atomic_write_json
from vision_mtl.evaluation.comparisons import arm_score, compare
from vision_mtl.evaluation.families import family
from vision_mtl.evaluation.scores import Score, accuracy_score

SEARCH_SEED = 100  # judge uses 0, 1, ...
CORES = 2  # of a budget's seconds
HOWS = {"probe": "linear probe, all labels", "finetune": f"fine-tuned, {peer_scores.FRACTION:.0%} of the labels"}
BETTER = {"helps": OURS, "hurts": LIGHTLY, "equivalent": "equivalent", "undecided": "undecided"}
MAJORITY, HOG = "majority (commonest class)", "HOG + kNN"
Hits = dict[tuple[str, str, str], np.ndarray]  # (how, task, arm) -> (S, n), 1 where the answer is right
Budgets = Sequence[tuple[float, int]]  # seconds of two cores, number of seeds


def search(seconds: float, jobs: int, runs: Path) -> dict[str, Any]:
    """Train and score every setting without test images; return the rows and the choice, and print them."""
    folder, data = open_folder(runs, seconds)
    rates = seconds_per_step(ARMS.values(), folder)
    work = [(name, planned_steps(arm, seconds, rates), folder) for name, arm in ARMS.items()]
    rows = list(in_parallel(jobs, searched, work))
    rows.sort(key=lambda row: -row["mean"])
    chosen = choose({row["arm"]: row["mean"] for row in rows})
    hog = peer_scores.cross_validated(peer_scores.hog_features, peer_scores.neighbour_candidates())
    floors = {MAJORITY: peer_scores.largest_class(open_data()), HOG: hog}
    print(search_table(rows, floors, chosen))
    print(f"\nchosen: {' and '.join(chosen.values())}")
    found = {"seconds": seconds, "seconds_per_step": rates, "seed": SEARCH_SEED, **data}
    return {**found, "chosen": chosen, "rows": rows, "floors": floors}


def planned_steps(arm: Arm, seconds: float, rates: dict[str, float]) -> int:
    """Return the steps that fit a budget of seconds of two cores; 0 for random weights."""
    return 0 if arm is UNTRAINED else max(1, round(seconds * CORES / rates[arm.cost]))


def searched(name: str, steps: int, folder: Path) -> dict[str, Any]:
    """Return one row of the search: what its training took, and its cross-validated scores."""
    torch.set_num_threads(1)
    run = pretrained(ARMS[name], SEARCH_SEED, steps, folder)
    file = run / "crossed.json"
    if not file.exists():
        features = peer_scores.backbone_features(run)
        atomic_write_json(file, peer_scores.cross_validated(features, peer_scores.linear_candidates()))
    found = json.loads(file.read_text())
    return {**record_of(run), "scores": found, "mean": float(np.mean([found[task] for task in TASKS]))}


def judge(budgets: Budgets, jobs: int, runs: Path, before: dict[str, Any], again: bool) -> dict[str, Any]:
    """Compare the chosen arms on test images at each budget; return scores and comparisons, and print them."""
    choice = before.get("search")
    if choice is None:
        raise SystemExit("nothing is chosen yet: run `python benchmarks/peers.py search` first")
    data = open_folder(runs, choice["seconds"])[1]
    if choice["split_hash"] != data["split_hash"]:
        raise SystemExit("the search was made on other splits: run `python benchmarks/peers.py search` again")
    looks = earlier_looks(before.get("judge"), data["split_hash"], again)
    names = [*choice["chosen"].values(), UNTRAINED.name]
    found = {seconds: judged_budget(seconds, seeds, names, jobs, runs, choice) for seconds, seeds in budgets}
    clusters = {task: open_data().cluster[open_data().indices("test", task=task).numpy()] for task in TASKS}
    hits = {seconds: hits_of(own, names) for seconds, own in found.items()}
    compared = comparisons(hits, clusters, choice["chosen"])
    scores = {label(seconds): scores_of(own, clusters, names) for seconds, own in hits.items()}
    means = mean_differences(hits, clusters, choice["chosen"])
    print(judge_tables(scores, compared, means))
    return {
        "budgets": [{"seconds": seconds, "cores": CORES, "seeds": seeds} for seconds, seeds in budgets],
        **data,
        "chosen": choice["chosen"],
        "finetune_steps": peer_scores.FINETUNE_STEPS,
        "looks": looks,
        "comparisons": compared,
        "means": means,
        "scores": {
            budget: {h: {n: {t: s.to_json() for t, s in o.items()} for n, o in by.items()} for h, by in own.items()}
            for budget, own in scores.items()
        },
        "runs": [{"seconds": seconds, **run_record(run)} for seconds, own in found.items() for run in own],
    }


def judged_budget(
    seconds: float, seeds: int, names: Sequence[str], jobs: int, runs: Path, choice: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the hits of every arm and seed at one budget, in the order of `names` and seeds."""
    folder = open_folder(runs, seconds)[0]
    steps = {name: planned_steps(ARMS[name], seconds, choice["seconds_per_step"]) for name in names}
    work = [(name, seed, steps[name], folder) for seed in range(seeds) for name in names]
    return sorted(in_parallel(jobs, judged, work), key=lambda run: (names.index(run["arm"]), run["seed"]))


def hits_of(found: Sequence[dict[str, Any]], names: Sequence[str]) -> Hits:
    """Return the hits of one budget's runs by way of judging, task and arm."""
    return {
        (how, task, name): np.array([run["hits"][how][task] for run in found if run["arm"] == name], float)
        for how in HOWS
        for task in TASKS
        for name in names
    }


def scores_of(
    hits: Hits, clusters: dict[str, np.ndarray], names: Sequence[str]
) -> dict[str, dict[str, dict[str, Score]]]:
    """Return how -> arm -> task -> score at one budget, with the floors of the probe."""
    found = {
        how: {name: {t: arm_score(hits[how, t, name], clusters[t]) for t in TASKS} for name in names} for how in HOWS
    }
    found["probe"] |= floor_scores(clusters)
    return found


def label(seconds: float) -> str:
    """Return the name of a budget in results and tables."""
    return f"{seconds:g} s"


def earlier_looks(judged_before: dict[str, Any] | None, split_hash: str, again: bool) -> list[dict[str, Any]]:
    """Return the earlier looks at the test images of these splits; end if there is one and `again` is False."""
    if judged_before is None or judged_before["split_hash"] != split_hash:
        return []
    look = {key: judged_before[key] for key in ("chosen", "budgets", "commit", "date")}
    if not again:
        raise SystemExit(
            f"the test images of these splits were judged on {look['date']}. A second look makes the result weaker; "
            "--again takes it, and the result lists both. For other splits change SPLIT_SEED in peer_runs.py."
        )
    return [*judged_before["looks"], look]


def judged(name: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Return an arm's hits on test images for one seed, with what its training took and the labels that it used."""
    torch.set_num_threads(1)
    run = pretrained(ARMS[name], seed, steps, folder)
    file = run / "judged.json"
    if not file.exists():
        probed = peer_scores.probe_hits(peer_scores.backbone_features(run), peer_scores.linear)
        tuned, labels = peer_scores.finetuned_hits(run, seed)
        hits = {"probe": probed, "finetune": tuned}
        found = {how: {task: of[task].astype(int).tolist() for task in TASKS} for how, of in hits.items()}
        atomic_write_json(file, {"hits": found, "labels": labels})
    return {**record_of(run), **json.loads(file.read_text())}


def comparisons(
    hits: dict[float, Hits], clusters: dict[str, np.ndarray], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Return ours against lightly for each budget, way of judging and task, with Holm's correction over all of them."""
    ours, peer = chosen[OURS], chosen[LIGHTLY]
    keys = [(seconds, how, task) for seconds in hits for how in HOWS for task in TASKS]
    found = [
        compare(
            hits[seconds][how, task, ours],
            hits[seconds][how, task, peer],
            clusters[task],
            task=task,
            fraction=1.0 if how == "probe" else peer_scores.FRACTION,
            arm=ours,
            baseline=peer,
        )
        for seconds, how, task in keys
    ]
    return [
        {"budget": label(seconds), "how": how, **row}
        for (seconds, how, _), row in zip(keys, family(found), strict=True)
    ]


def mean_differences(
    hits: dict[float, Hits], clusters: dict[str, np.ndarray], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the mean over tasks of ours minus lightly, with its 95 % interval, at each budget and way of judging.

    Test images of all tasks are one sample, weighted so that every task counts the same.
    """
    total = sum(len(own) for own in clusters.values())
    shift = np.cumsum([0, *(own.max() + 1 for own in clusters.values())])
    joined = np.concatenate([own + start for own, start in zip(clusters.values(), shift, strict=False)])
    found = []
    for seconds, own in hits.items():
        for how in HOWS:
            ours, peer = (
                np.concatenate([own[how, t, arm] * total / len(TASKS) / len(clusters[t]) for t in clusters], axis=1)
                for arm in (chosen[OURS], chosen[LIGHTLY])
            )
            difference = compare(ours, peer, joined).difference.to_json()
            found.append({"budget": label(seconds), "how": how, "difference": difference})
    return found


def floor_scores(clusters: dict[str, np.ndarray]) -> dict[str, dict[str, Score]]:
    """Return the test scores of the commonest class and of HOG with kNN, whose k validation images choose."""
    found = {
        MAJORITY: peer_scores.probe_hits(peer_scores.hog_features, peer_scores.constant),
        HOG: peer_scores.probe_hits(peer_scores.hog_features, peer_scores.neighbours),
    }
    return {name: {task: accuracy_score(of[task], clusters[task]) for task in TASKS} for name, of in found.items()}


def run_record(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run without its hits, with its accuracies."""
    accuracy = {how: {task: float(np.mean(of[task])) for task in TASKS} for how, of in run["hits"].items()}
    return {key: value for key, value in run.items() if key != "hits"} | {"accuracy": accuracy}


def open_folder(runs: Path, seconds: float) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the trainings on these splits with this budget, and what the result says of the data."""
    summary, config = open_data().summary(), settings({})
    images = {task: {split: summary["tasks"][task][split] for split in ("train", "val", "test")} for task in TASKS}
    splits = splits_of(open_data(), config.data, config.tasks)
    data = {"threads": 1, "split_seed": SPLIT_SEED, **splits, "labelled_images": images}
    return runs / f"{seconds:g}s-{summary['split_hash']}", data


def in_parallel(jobs: int, function: Callable[..., dict[str, Any]], work: Sequence[tuple[Any, ...]]) -> Iterator[dict]:
    """Yield the results of `function(*one)` for all work, `jobs` processes at a time, with a line for each."""
    results = Parallel(jobs, return_as="generator_unordered")(delayed(function)(*one) for one in work)
    for number, found in enumerate(results, start=1):
        text = f"{number} of {len(work)}: {found['arm']}, seed {found['seed']}, {found['images_seen']:,} images seen"
        print(text, file=sys.stderr, flush=True)
        yield found


# --- tables in Markdown


def search_table(rows: Sequence[dict[str, Any]], floors: dict[str, dict[str, float]], chosen: dict[str, str]) -> str:
    """Return every setting, best first, and the floors; the chosen ones are bold."""
    lines = [line("arm", *TASKS, "mean", "images seen", "share of time for data"), line(*["---"] * 8)]
    for row in rows:
        name = f"**{row['arm']}**" if row["arm"] in chosen.values() else row["arm"]
        share = f"{row['data_share']:.2f}" if "data_share" in row else ""
        lines.append(line(name, *shown(row["scores"]), f"{row['images_seen']:,}", share))
    return "\n".join([*lines, *(line(name, *shown(found), "", "") for name, found in floors.items())])


def shown(found: dict[str, float]) -> list[str]:
    """Return the cells of the tasks and of their mean."""
    values = [found[task] for task in TASKS]
    return [f"{value:.3f}" for value in (*values, float(np.mean(values)))]


def judge_tables(
    scores: dict[str, dict[str, dict[str, dict[str, Score]]]],
    compared: Sequence[dict[str, Any]],
    means: Sequence[dict[str, Any]],
) -> str:
    """Return a table of scores for each budget and way of judging, one of the comparisons, and the mean differences."""
    lines: list[str] = []
    for budget, of_budget in scores.items():
        for how, title in HOWS.items():
            lines += [line(f"{budget}, {title}", *TASKS), line(*["---"] * (1 + len(TASKS)))]
            lines += [line(name, *(with_interval(of[task]) for task in TASKS)) for name, of in of_budget[how].items()]
            lines.append("")
    head = ("budget", "how", "task", "ours minus lightly", "corrected", "detectable", "better")
    lines += [line(*head), line(*["---"] * len(head))]
    for row in compared:
        difference, corrected = row["difference"], row["difference_holm"]
        ends = [f"{found['low']:+.3f} to {found['high']:+.3f}" for found in (difference, corrected)]
        seen = f"{row['minimum_detectable']:.3f}" if row["minimum_detectable"] is not None else ""
        value = f"{difference['value']:+.3f} ({ends[0]})"
        lines.append(line(row["budget"], HOWS[row["how"]], row["task"], value, ends[1], seen, BETTER[row["verdict"]]))
    for row in means:
        own = row["difference"]
        value = f"{own['value']:+.3f} ({own['low']:+.3f} to {own['high']:+.3f})"
        lines.append(line(row["budget"], HOWS[row["how"]], "mean of the tasks", value, "", "", ""))
    return "\n".join(lines)


def with_interval(score: Score) -> str:
    """Return .912 (.893 to .931)."""
    if score.low is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def line(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"

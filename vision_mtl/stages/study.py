"""Study: arms, seeds and label fractions -> paired differences with intervals, and a report of what helped.

An arm is a list of stages with options. Equal runs of several arms are run once; whatever is finished stays so, and the
same command goes on. The test images of a run are read once, at its end; validation images choose everything else.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from vision_mtl.config.resolve import RunConfig, resolve
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.interruptions import INTERRUPTED
from vision_mtl.core.run import Run
from vision_mtl.core.run_lock import LOCK
from vision_mtl.evaluation.families import family
from vision_mtl.recipes import build
from vision_mtl.recipes.study_options import composer
from vision_mtl.study.collect import Collection, compare_arms, score_rows
from vision_mtl.study.design import before_the_runs
from vision_mtl.study.grid_search import Chosen, choose, plan_candidates, tuning_seeds
from vision_mtl.study.plan import Plan
from vision_mtl.study.recipes import STAGES as ARM_STAGES
from vision_mtl.study.recipes import Arm, read_arms
from vision_mtl.study.record import study_record
from vision_mtl.study.report import write_report
from vision_mtl.study.runner import Job, Runner

SECTIONS = ("data", "tasks", "backbone", "decoder", "runtime", "track")
DEFAULT_ARMS = {"labelled_only": ["finetune"], "pretrained": ["pretrain", "finetune"]}
ORPHAN_SECONDS = 60.0  # how long to wait for a run that a killed study has left behind
LOG = ".log"


@STAGES.register("study")
def study(
    config: RunConfig,
    run: Run,
    *,
    question: str = "Does self-supervised pretraining help where labels are few?",  # the report's title
    arms: dict[str, Any] = {},  # noqa: B006 arm -> its stages, or a mapping of stages, extends, note, options by stage,
    # separate, seed_offset and grid; none: labelled_only and pretrained
    options: dict[str, Any] = {},  # noqa: B006 stage -> options of that stage in every arm, as in a config of its own
    seeds: list[int] = [0, 1, 2, 3, 4],  # noqa: B006 every arm is run with each; --seed is added to them
    fractions: list[float] = [0.1],  # noqa: B006 shares of the training labels, nested, each its own comparison
    compare: list[str] = [],  # noqa: B006 comparisons as "ARM - BASELINE"; none: every arm minus the first
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy",  # of tasks with classes; others keep their own
    guard_skew: bool = False,  # widen intervals where differences over seeds are skewed (docs/statistics.md)
    num_tuning_seeds: int = 1,  # seeds, other than those compared, on which an arm's grid is searched
    expected_std: float = 0.02,  # of paired differences over seeds, for what is said before the runs to be detectable
    share: bool = True,  # run once what several arms have in common; false: each arm on its own
    num_jobs: int = 0,  # runs at a time; 0: one a core, or a single one where they train on a GPU
    backend: Literal["loky", "dask", "ray"] = "loky",  # who runs them: this machine, or a cluster that sees its folders
    address: str | None = None,  # of the dask scheduler or ray cluster; null: a local one is started
    keep: Literal["best", "all"] = "best",  # weights of judged runs: best leaves out what they would go on from
) -> None:
    """Plan, say what can be seen, run, compare, report."""
    start = time.perf_counter()
    recipes = read_arms(arms or DEFAULT_ARMS)
    pairs = read_pairs(compare, list(recipes))
    all_seeds = [config.seed + seed for seed in seeds]
    check(config, all_seeds, fractions, options, num_tuning_seeds)
    pool = build.open_pool(config, run)  # decoded before the runs, which then share it
    plan = Plan(composer(config, options), config.tasks, fractions, share)
    trials = plan_candidates(plan, recipes, fractions, tuning_seeds(all_seeds, num_tuning_seeds))
    finals = plan_finals(plan, recipes, fractions, all_seeds, {}) if not trials else {}
    before = before_the_runs(pool, pairs, fractions, len(all_seeds), expected_std)
    say_plan(run, plan, before, len(all_seeds))

    width = num_jobs or (1 if trains_on_gpu(config.device) else 0)
    runner = Runner(run.folder.absolute(), run_job, width, backend, address, run.speaker)
    chosen: Chosen = {}
    if trials:
        run.say(f"searching the grids on validation images: {len(plan.nodes)} runs")
        runner.run(plan)
        chosen = choose(plan, recipes, trials, runner.folder)
        finals = plan_finals(plan, recipes, fractions, all_seeds, chosen)
    runner.run(plan)
    if keep == "best":
        drop_states(runner.folder, plan, finals)

    collection = Collection(plan, finals, runner.folder, all_seeds, metric)
    comparisons = family(compare_arms(collection, pairs, fractions, guard_skew)) if pairs else []
    scores = score_rows(collection, list(recipes), fractions, guard_skew)
    asked = {
        "name": run.folder.name,
        "question": question,
        "seeds": all_seeds,
        "fractions": fractions,
        "metric": metric,
    }
    found = {"chosen": chosen, "scores": scores, "comparisons": comparisons, "before": before}
    record = study_record(asked, config.tasks, pool, recipes, plan, runner, **found)
    record |= {"warnings": [*run.warnings, *run_warnings(record["runs"], run.warnings)], "config": config.to_yaml()}
    atomic_write_json(run.folder / "study.json", record)
    write_report(record, run.folder)
    metrics = {"comparisons": comparisons, "scores": scores, "cost": record["cost"]}
    run.write_result("completed", metrics=metrics, data=pool.summary(), seconds=time.perf_counter() - start)


def check(
    config: RunConfig,
    seeds: Sequence[int],
    fractions: Sequence[float],
    options: Mapping[str, Any],
    num_tuning_seeds: int,
) -> None:
    """Raise `UserError` for options out of range."""
    if config.init_from:
        raise UserError(
            f"a study's arms say what they start from: give init_from {config.init_from} to a stage, as in "
            "study.arms.NAME: {stages: [finetune], finetune: {init_from: RUN}}."
        )
    if not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"study.seeds must name at least one seed, each once; found {list(seeds)}.")
    if not fractions or not all(0 < f <= 1 for f in fractions) or len(set(fractions)) != len(fractions):
        raise UserError(f"study.fractions must be different numbers in (0, 1]; found {list(fractions)}.")
    if num_tuning_seeds < 1:
        raise UserError(f"study.num_tuning_seeds must be 1 or more; found {num_tuning_seeds}.")
    for stage in options:
        if stage not in ARM_STAGES:
            raise unknown("stage in study.options", str(stage), ARM_STAGES)


def read_pairs(compare: Sequence[str], arms: Sequence[str]) -> list[tuple[str, str]]:
    """(arm, baseline) of each comparison. Raises `UserError` for an unknown arm."""
    if not compare:
        return [(arm, arms[0]) for arm in arms[1:]]
    pairs = []
    for text in compare:
        arm, minus, baseline = (part.strip() for part in text.partition(" - "))
        if not minus or arm == baseline:
            raise UserError(f'study.compare must hold "ARM - BASELINE" of two arms; found {text!r}.')
        for name in (arm, baseline):
            if name not in arms:
                raise unknown("arm in study.compare", name, arms)
        pairs.append((arm, baseline))
    return pairs


def plan_finals(
    plan: Plan, arms: Mapping[str, Arm], fractions: Sequence[float], seeds: Sequence[int], chosen: Chosen
) -> dict[tuple[str, float, int], list[str]]:
    """Add the runs that are compared; (arm, fraction, seed) -> the keys of those that the arm is judged by."""
    return {
        (name, fraction, seed): plan.add(arm, fraction, seed, chosen.get((name, fraction), {}).get("options"))
        for name, arm in arms.items()
        for fraction in fractions
        for seed in seeds
    }


def trains_on_gpu(device: str) -> bool:
    """Whether runs on `device` would share one accelerator's memory."""
    return device in ("cuda", "mps") or (device == "auto" and torch.cuda.is_available())


def run_warnings(rows: Sequence[Mapping[str, Any]], said: Sequence[str]) -> list[str]:
    """What the runs warned of that the study has not `said`, each once, with how many did."""
    counts = Counter(text for row in rows for text in row["warnings"] if text not in said)
    return [f"{count} of {len(rows)} runs: {text}" for text, count in counts.items()]


def say_plan(run: Run, plan: Plan, before: Mapping[str, Any], num_seeds: int) -> None:
    """Print what will be run, and what it will be able to show."""
    saved = plan.num_requested - len(plan.nodes)
    run.say(f"{len(plan.nodes)} runs planned" + (f"; sharing saves {saved}" if saved else ""))
    seen = [row["minimum_detectable"] for row in before["rows"] if row["minimum_detectable"] is not None]
    if seen:
        run.say(
            f"with {num_seeds} seeds and {len(before['rows'])} comparisons this design shows differences of "
            f"{min(seen):.3f} to {max(seen):.3f} (80 % power), if they vary by {before['expected_std']:g} over seeds"
        )
    elif before["rows"] and num_seeds < 2:
        run.warn("one seed tells nothing of other seeds: there will be no interval and no verdict.")


def run_job(job: Job) -> str | None:
    """One run of the plan in a worker, its output in a log; returns what went wrong.

    Raises `KeyboardInterrupt` if the run was asked to stop: then the whole study is.
    """
    from vision_mtl.cli.execute import execute  # late: the command runs stages, this one among them

    try:
        log_file = job.folder.with_name(job.folder.name + LOG)  # beside the folder: a new run wants it empty
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            wait_for(job.folder)
            try:
                code = execute(resolve(job.stage, job.options, {}), job.folder)
            except Exception:
                traceback.print_exc()
                raise
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return None
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error} (traceback in {log_file})"


def wait_for(folder: Path) -> None:
    """Wait while another process, left behind by a study that was killed, still ends its work in the folder."""
    if folder.is_dir():
        with suppress(Timeout), FileLock(folder / LOCK, timeout=ORPHAN_SECONDS):
            pass


def drop_states(folder: Path, plan: Plan, finals: Mapping[Any, Sequence[str]]) -> None:
    """Delete what judged runs would go on from: they are finished, and their best weights stay."""
    for key in {key for keys in finals.values() for key in keys}:
        checkpoints = folder / plan.nodes[key].folder / "checkpoints"
        if (checkpoints / "best.safetensors").is_file():
            for file in checkpoints.glob("step-*.safetensors"):
                file.unlink(missing_ok=True)

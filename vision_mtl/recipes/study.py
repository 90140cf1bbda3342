"""Steps of a study: check its options, plan its runs, run one, report."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vision_mtl.config.plugins import load_plugins
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.interruptions import INTERRUPTED
from vision_mtl.core.run import Run
from vision_mtl.core.run_lock import LOCK
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation.power import NOTHING_SHOWN
from vision_mtl.study.arms import Arm
from vision_mtl.study.grid_search import Chosen
from vision_mtl.study.number_format import format_count
from vision_mtl.study.plan import Plan
from vision_mtl.study.roles import ArmRole
from vision_mtl.study.runner import Job

DEFAULT_ROPE = 0.01  # 1 point
DEFAULT_ARMS = {"labelled_only": ["finetune"], "pretrained": ["pretrain", "finetune"]}
ORPHAN_SECONDS = 60.0  # limit to wait for a run that a killed study left running
LOG = ".log"  # suffix of a run's log file, next to its folder

Launch = Callable[[RunConfig, Path], int]  # runs a stage in a folder; returns the exit code


def check_study(
    config: RunConfig,
    seeds: Sequence[int],
    fractions: Sequence[float],
    options: Mapping[str, Any],
    num_tuning_seeds: int,
) -> None:
    """Raise `UserError` for an option out of range."""
    if config.init_from:
        raise UserError(
            f"each arm of a study has its own start: give init_from {config.init_from} to a stage, as in "
            "study.arms.NAME: {stages: [finetune], finetune: {init_from: RUN}}."
        )
    if not seeds or len(set(seeds)) != len(seeds):
        raise UserError(f"study.seeds must name at least one seed, each once; found {list(seeds)}.")
    if not fractions or not all(0 < f <= 1 for f in fractions) or len(set(fractions)) != len(fractions):
        raise UserError(f"study.fractions must be different numbers in (0, 1]; found {list(fractions)}.")
    if num_tuning_seeds < 1:
        raise UserError(f"study.num_tuning_seeds must be 1 or more; found {num_tuning_seeds}.")
    for stage in options:
        if stage not in arm_roles():
            raise unknown("stage in study.options", str(stage), arm_roles())


def option_warnings(options: Mapping[str, Any]) -> list[str]:
    """Return a warning for each stage of `study.options` whose seed is given, which runs do not use."""
    return [
        f"study.options.{stage}.seed has no effect: runs have the seeds of study.seeds. For one seed in all, "
        f"give it to an arm: study.arms.NAME: {{{stage}: {{seed: {given['seed']}}}}}."
        for stage, given in options.items()
        if isinstance(given, Mapping) and "seed" in given
    ]


def read_pairs(compare: Sequence[str], arms: Sequence[str]) -> list[tuple[str, str]]:
    """Return (arm, baseline) of each comparison; raise `UserError` for an unknown arm."""
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


def read_ropes(rope: float | Mapping[str, float], kinds: Mapping[str, str]) -> dict[str, float | None]:
    """Return the largest difference that does not matter for each task, by its kind of label; None: there is none.

    Raises `UserError` for a negative one, and for an unknown task.
    """
    given = rope if isinstance(rope, Mapping) else {}
    for task, value in given.items():
        if task not in kinds:
            raise unknown("task in study.rope", str(task), kinds)
        if not value >= 0:
            raise UserError(f"study.rope must be 0 or more; found {value} for task {task}.")
    share = DEFAULT_ROPE if isinstance(rope, Mapping) else rope
    if not 0 <= share < 1:
        raise UserError(
            f"study.rope must lie in [0, 1), as scores do; found {share:g}. For a task in other units name it: "
            f"{{TASK: {share:g}}}."
        )
    return {task: given.get(task, share if label_kind(kind).has_classes else None) for task, kind in kinds.items()}


def plan_final_runs(
    plan: Plan, arms: Mapping[str, Arm], fractions: Sequence[float], seeds: Sequence[int], chosen: Chosen
) -> dict[tuple[str, float, int], list[str]]:
    """Add the runs to compare; return (arm, fraction, seed) -> the keys of the runs that the arm is scored by."""
    return {
        (name, fraction, seed): plan.add(arm, fraction, seed, chosen.get((name, fraction), {}).get("options"))
        for name, arm in arms.items()
        for fraction in fractions
        for seed in seeds
    }


def plan_first_candidates(
    plan: Plan, arms: Mapping[str, Arm], fractions: Sequence[float], seeds: Sequence[int]
) -> tuple[Plan, dict[tuple[str, float, int], list[str]]]:
    """Return a separate plan of the runs to compare, and their keys, as if every grid chose its first candidate."""
    first = Plan(plan.compose, plan.tasks, plan.fractions, plan.roles, plan.share)
    chosen: Chosen = {
        (name, fraction): {"options": arm.candidates()[0]} for name, arm in arms.items() for fraction in fractions
    }
    return first, plan_final_runs(first, arms, fractions, seeds, chosen)


def trains_on_gpu(device: str) -> bool:
    """Return whether runs on `device` would share the memory of one GPU."""
    return device in ("cuda", "mps") or (device == "auto" and torch.cuda.is_available())


def collect_warnings(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[str]:
    """Return the runs' warnings that are not in `known`, each once, with its number of runs."""
    counts = Counter(text for row in rows for text in row["warnings"] if text not in known)
    return [f"{count} of {len(rows)} runs: {text}" for text, count in counts.items()]


def report_plan(
    run: Run, plan: Plan, before: Mapping[str, Any], num_seeds: int, scopes: Mapping[str, Sequence[str]]
) -> None:
    """Log the number of runs, the differences that the design can detect, and warn of comparisons of limited scope."""
    saved = plan.num_requested - len(plan.nodes)
    run.say(f"{len(plan.nodes)} runs planned" + (f"; sharing saves {saved}" if saved else ""))
    known = [row["minimum_detectable"] for row in before["rows"] if row["minimum_detectable"] is not None]
    smallest = [value for value in known if value <= 1]  # a plan knows shares only, which differ by 1 at most
    if smallest:
        ends = dict.fromkeys(f"{end:.3f}" for end in (min(smallest), max(smallest)))
        run.say(
            f"{format_count(num_seeds, 'seed')} and {format_count(len(before['rows']), 'comparison')} detect "
            f"differences of {' to '.join(ends)} (80 % power), at a standard deviation over seeds of "
            f"{before['expected_std']:g} on many test images"
        )
    if len(smallest) < len(known):
        run.warn(f"in {len(known) - len(smallest)} of {len(before['rows'])} comparisons, {NOTHING_SHOWN}.")
    if not known and before["rows"] and num_seeds < 2:
        run.warn("one seed shows no variation over seeds: there will be no interval and no verdict.")
    for scope, names in scopes.items():
        run.warn(
            f"{', '.join(names)}, {scope}. All {num_seeds} seeds start from it. To judge the recipe, give each its "
            "own: remove `seed`, `init_from` or `selection` from the arm's stages."
        )


def arm_roles() -> dict[str, ArmRole]:
    """Return the stages that an arm may have, in alphabetical order, with their roles."""
    found = {name: STAGES.get(name).arm for name in STAGES.names()}
    return {name: role for name, role in found.items() if role is not None}


def run_job(job: Job, launch: Launch | None, plugins: Sequence[str] = ()) -> str | None:
    """Run one run of the plan in a worker, with its output in a log file; return the error's text, or None.

    `launch` runs the stage. Raises `KeyboardInterrupt` if the run was interrupted, which stops the whole study, and
    `TypeError` without `launch`.
    """
    if launch is None:
        raise TypeError("a study needs a run with `launch`, the function that runs a stage in a folder; found None.")
    try:
        log_file = job.folder.with_name(job.folder.name + LOG)  # not inside: a new run needs an empty folder
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with (
            log_file.open("a", encoding="utf-8", errors="backslashreplace") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            wait_until_unlocked(job.folder)
            load_plugins(plugins)  # the worker is another process
            try:
                code = launch(resolve(job.stage, job.options, {}), job.folder)
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


def wait_until_unlocked(folder: Path) -> None:
    """Wait while a process that a killed study left running still works in the folder."""
    if folder.is_dir():
        with suppress(Timeout), FileLock(folder / LOCK, timeout=ORPHAN_SECONDS):
            pass


def delete_resume_states(folder: Path, plan: Plan, finals: Mapping[Any, Sequence[str]]) -> None:
    """Delete the checkpoints that finished final runs would resume from, and keep their best weights."""
    for key in {key for keys in finals.values() for key in keys}:
        checkpoints = folder / plan.nodes[key].folder / "checkpoints"
        if (checkpoints / "best.safetensors").is_file():
            for file in checkpoints.glob("step-*.safetensors"):
                file.unlink(missing_ok=True)

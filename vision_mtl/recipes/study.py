"""Plan, run and check the runs of a study."""

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
from vision_mtl.study.grid_search import Chosen
from vision_mtl.study.plan import Plan
from vision_mtl.study.recipes import Arm
from vision_mtl.study.roles import ArmRole
from vision_mtl.study.runner import Job

DEFAULT_ARMS = {"labelled_only": ["finetune"], "pretrained": ["pretrain", "finetune"]}
ORPHAN_SECONDS = 60.0  # how long to wait for a run that a killed study has left behind
LOG = ".log"

Launch = Callable[[RunConfig, Path], int]  # runs a stage in a folder; the exit code


def check_study(
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
        if stage not in arm_roles():
            raise unknown("stage in study.options", str(stage), arm_roles())


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


def arm_roles() -> dict[str, ArmRole]:
    """Return the stages that an arm may have, in alphabetical order, with their parts in it."""
    found = {name: STAGES.get(name).arm for name in STAGES.names()}
    return {name: role for name, role in found.items() if role is not None}


def run_job(job: Job, launch: Launch, plugins: Sequence[str] = ()) -> str | None:
    """Run one run of the plan in a worker, its output in a log, by `launch`; return what went wrong.

    Raises `KeyboardInterrupt` if the run was asked to stop: then the whole study is.
    """
    try:
        log_file = job.folder.with_name(job.folder.name + LOG)  # next to the folder: a new run needs it empty
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            wait_for(job.folder)
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

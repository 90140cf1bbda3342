"""Run one stage in a folder: start, resume or extend it there, and record how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from vision_mtl.cli.next_steps import steps_text, what_next, where_to_look
from vision_mtl.config.options import plain
from vision_mtl.config.resolve import without_retired
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.schema import ADDED, build_schema
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.console import AUTO, Console
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import MACHINE, disk_error
from vision_mtl.core.interruptions import INTERRUPTED, Interruptions
from vision_mtl.core.memory import is_out_of_memory, out_of_memory
from vision_mtl.core.run import CONFIG, Run
from vision_mtl.core.run_lock import HOLDER, LOCK
from vision_mtl.study.arms import flat
from vision_mtl.training.progress import phase

# files that a folder may hold without a config, if the run was killed right at its start
OWN_FILES = (LOCK, HOLDER)
LEFTOVER = r"\.(config|\.holder)\..*\.tmp"
# parts of PyTorch's errors when another process of the run is lost
LOST_PROCESS = ("gloo", "NCCL", "DistBackendError", "DistNetworkError", "Connection closed by peer")


def execute(config: RunConfig, folder: Path, console: Console = AUTO) -> int:
    """Start or resume the stage in `folder`, or show its result if it is completed; return the exit code.

    Raises `UserError` for errors that the user can fix, and any other error unchanged.
    """
    run = Run(folder, config.stage, config.seed, console=console, launch=execute)
    extended = check_folder(config, folder)
    result = run.result()
    if result is not None and result["status"] == "completed" and not extended:
        run.say(f"{folder} is completed; nothing is left to do (a larger --optim.steps extends it).")
        show_end(config, run)
        return 0
    run.open(config.to_yaml())
    if extended:
        run.extend()
        run.warn(extended)
    for note in config.notes:
        run.warn(note)
    run.say(f"{config.stage} in {folder}")
    try:
        with Interruptions(at_once=True):
            with phase(run.speaker, "loading PyTorch and timm"):
                import_module("vision_mtl.recipes.build")  # most of what stages import, which takes a while
            config.options.run(config, run)
    except Exception as error:
        with Interruptions():  # a launcher stops all processes when one has died: record the reason before its signal
            fail(run, error)
    except KeyboardInterrupt as interrupt:
        with Interruptions():
            if is_lost_process(cause := interrupt.__context__):  # the launcher's SIGTERM came meanwhile
                fail(run, cause)
            record_end(run, "interrupted")
            run.say(f"interrupted; the same command with --run_dir {folder} resumes it.")
            return INTERRUPTED
    finally:
        run.close()
    show_end(config, run)
    return 0


def show_end(config: RunConfig, run: Run) -> None:
    """Print the result, its files and the next commands on standard output."""
    from vision_mtl.recipes.result_text import result_text  # late: most runs end long after the start

    result = run.result()
    if result is None or not run.is_main:
        return
    if text := result_text(result, {name: task.source for name, task in config.tasks.items()}):
        run.show(text)
    run.show(steps_text(config, run.folder, result))
    steps = {"look": where_to_look(config, run.folder), "next": what_next(config, run.folder, result)}
    run.console.result({"run_dir": str(run.folder), **result, **steps})


def fail(run: Run, error: Exception) -> NoReturn:
    """Record that the run ended with `error`, and raise it: as `UserError` if the user can fix it."""
    known = as_user_error(error, run.folder)
    record_end(run, "failed", str(known) if known is not None else f"{type(error).__name__}: {error}")
    if known is None:
        run.say(
            "this is a bug in vision_mtl: please report the error below, with config.yaml and environment.json of "
            f"{run.folder}."
        )
    if known is None or known is error:
        raise error
    raise known from error


def record_end(run: Run, status: str, error: str | None = None) -> None:
    """Write the result of a run that did not complete; only print a message if the disk is full even for that."""
    try:
        run.write_result(status, error=error)
    except UserError as failed:
        run.say(f"result.json could not be written: {failed}")


def as_user_error(error: Exception, folder: Path) -> UserError | None:
    """Return the error as one that the user can fix (memory, disk, lost processes); None for a bug."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return out_of_memory("outside of training; what was trained is saved")
    if is_lost_process(error):
        return UserError(
            "another process of this run has ended, or cannot be reached: see its message above. The same command "
            f"resumes from the last checkpoint ({' '.join(str(error).split())[:200]})."
        )
    if isinstance(error, OSError) and error.errno in MACHINE:
        return disk_error(Path(error.filename or folder), 0, error)
    return None


def is_lost_process(error: BaseException | None) -> TypeGuard[RuntimeError]:
    """Return True for PyTorch's error when another process of this run cannot be reached."""
    return isinstance(error, RuntimeError) and any(sign in f"{type(error).__name__} {error}" for sign in LOST_PROCESS)


def look(config: RunConfig, console: Console) -> int:
    """Run a stage that reads a run and writes none; return the exit code."""
    run = Run(Path(config.init_from or "."), config.stage, config.seed, console=console)
    try:
        with Interruptions(at_once=True):
            config.options.run(config, run)
    except KeyboardInterrupt:
        run.say("stopped.")
        return INTERRUPTED
    return 0


def check_folder(config: RunConfig, folder: Path) -> str | None:
    """Return None for a new folder, one that holds this run, or one whose run failed before it kept anything; a message
    for this run with fewer steps or seeds.

    Raises `UserError` for a folder that holds anything else.
    """
    path = folder / CONFIG
    if not path.exists():
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        others = [name for name in entries if name not in OWN_FILES and not re.fullmatch(LEFTOVER, name)]
        if others:
            raise UserError(
                f"--run_dir {str(folder)!r} holds other files ({others[0]}, ...) and no {CONFIG}; choose another."
            )
        return None
    before, now = without_retired(flat(read_config(path))), flat(config.to_dict())
    before = {key: value for key, value in ADDED.items() if key in now} | before
    changed = [key for key in differing(config, before, now) if key not in config.options.changeable]
    if not changed:
        return None
    if _is_longer(changed, before, now):
        return f"extended from {before['optim.steps']} to {now['optim.steps']} steps."
    old, new = before.get("study.seeds"), now.get("study.seeds")
    if changed == ["study.seeds"] and old and new and old == new[: len(old)]:
        count = len(new) - len(old)
        return (
            f"{count} {'seed was' if count == 1 else 'seeds were'} added to {len(old)}: the intervals are valid only "
            "if the first results did not influence that decision."
        )
    if failed_at_start(folder):
        return None
    lines = "\n".join(f"  {key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in sorted(changed))
    raise UserError(
        f"--run_dir {str(folder)!r} holds another run; these options differ:\n{lines}\n"
        "Give the same values to resume it (a larger --optim.steps extends it, more --study.seeds a study), or another "
        "--run_dir."
    )


def _is_longer(changed: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return True if only the end of training differs and lies later: more steps, and no tighter limit of time."""
    if "optim.steps" not in changed or not {*changed} <= {"optim.steps", "optim.max_seconds"}:
        return False
    (old, new), (limit, later) = ((before.get(key), now.get(key)) for key in ("optim.steps", "optim.max_seconds"))
    in_time = later is None or (limit is not None and later >= limit)
    return old is not None and new is not None and new > old and in_time


def failed_at_start(folder: Path) -> bool:
    """Return True if the run in `folder` failed before it kept weights or other runs: it may be given new options."""
    result = Run(folder, "", 0).result()
    kept = any(next(folder.glob(f"{part}/*"), None) for part in ("checkpoints", "runs", "fold-*"))
    return result is not None and result["status"] == "failed" and not kept


def differing(config: RunConfig, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the dotted options that differ; a newer option, which `before` lacks, counts as its default."""
    schema = build_schema(config.stage, config.tasks, config.pretexts, config.decoder.registered_name)
    defaults = {key: plain(option.default) for key, option in schema.items()}
    return [key for key in {**before, **now} if before.get(key, defaults.get(key)) != now.get(key)]

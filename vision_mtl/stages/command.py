"""The command line: words in, one stage run in a folder, an exit code out.

0: done. 1: a fault of ours (with a traceback). 2: something the user can mend (one message). 130: interrupted by SIGINT
(Ctrl-C) or SIGTERM; the same command goes on from where it stopped, so a scheduler can start it again.
"""

from __future__ import annotations

import re
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import yaml

from vision_mtl import __version__
from vision_mtl.core.claim import HOLDER, LOCK
from vision_mtl.core.console import AUTO, Console, silent_libraries
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.files import MACHINE, disk_error
from vision_mtl.core.interruptions import INTERRUPTED, Interruptions
from vision_mtl.core.memory import is_out_of_memory, out_of_memory
from vision_mtl.core.run import CONFIG, Run, is_main_process
from vision_mtl.stages.choice import TUNED, with_choice
from vision_mtl.stages.config import RunConfig, resolve
from vision_mtl.stages.help import help_text, stage_list
from vision_mtl.stages.next_steps import steps_text, what_next, where_to_look
from vision_mtl.stages.registry import STAGES
from vision_mtl.study.recipes import flat

# how runs are dealt out, and what of a network a process holds, changes no result
HOW = ("study.num_jobs", "study.backend", "study.address", "runtime.shard")
OWN_FILES = (LOCK, HOLDER)  # may be there before a config is, if the run was killed right at its start
LEFTOVER = r"\.(config|\.holder)\..*\.tmp"  # likewise
LOST_PROCESS = (
    "gloo",
    "NCCL",
    "DistBackendError",
    "DistNetworkError",
    "Connection closed by peer",
)  # as PyTorch says it
LOOKS_ONLY = ("explore",)  # stages that write no run: --run_dir names the one that is looked at, as --init_from does
COMMAND_OPTIONS = ("stage", "config", "run_dir", "print_config", "console", "help", "version")


def main(words: list[str]) -> int:
    """Run the command; returns the exit code. Raises a fault of ours as it is, unless a machine listens."""
    console = AUTO
    try:
        given = split_words(words)
        console = Console.of(_one(given, "console") or AUTO.mode)
        with silent_libraries():
            code = _command(given, console)
    except UserError as error:
        with Interruptions():  # told first, as in `execute`
            console.error(str(error), 2)
        return 2
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if console.mode != "json":
            raise
        console.error(f"{type(error).__name__}: {error}", 1, traceback=traceback.format_exc())
        return 1
    if code == INTERRUPTED and is_main_process():
        console.result({"status": "interrupted", "error": "interrupted by SIGINT or SIGTERM", "exit_code": code})
    return code


def _command(given: dict[str, list[str]], console: Console) -> int:
    own = {key: given.pop(key) for key in COMMAND_OPTIONS if key in given}
    if "version" in own:
        print(__version__)
        return 0
    stage = _one(own, "stage")
    if "help" in own:
        print(help_text(stage))
        return 0
    file = read_config(Path(_one(own, "config"))) if "config" in own else {}
    stage = stage or file.get("stage")
    if stage is None:
        raise UserError(f"which stage? Give --stage NAME:\n{stage_list()}")
    if stage not in STAGES.names():
        raise unknown("stage", str(stage), STAGES.names())
    if stage in LOOKS_ONLY and "run_dir" in own:
        given["init_from"] = [_looked_at(str(_one(own, "run_dir")), given.get("init_from") or [file.get("init_from")])]
    config = resolve(stage, file, given)
    if "print_config" in own:
        print(config.to_yaml(), end="")
        return 0
    if stage in LOOKS_ONLY:
        return look(config, console)
    folder = _one(own, "run_dir") or f"runs/{stage}-{datetime.now():%Y%m%d-%H%M%S}"
    return execute(config, Path(folder).expanduser(), console)


def split_words(words: list[str]) -> dict[str, list[str]]:
    """`--a.b 1 2 --c=3 --flag` -> {"a.b": ["1", "2"], "c": ["3"], "flag": []}; the last of a repeated option counts.

    Raises `UserError` for a word that belongs to no option.

    >>> split_words(["--optim.betas", "0.9", "0.95", "--seed=3", "--data.clean"])
    {'optim.betas': ['0.9', '0.95'], 'seed': ['3'], 'data.clean': []}
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        if word == "-h":
            word = "--help"
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            current = found[key] = [value] if equals else []
        elif current is None:
            raise UserError(f"options begin with --; found {word!r}. See --help.")
        else:
            current.append(word)
    return found


def _one(own: dict[str, list[str]], key: str) -> str | None:
    if key not in own:
        return None
    if len(own[key]) != 1 and not (key == "stage" and "help" in own):
        raise UserError(f"option --{key} takes one value; found {' '.join(own[key])!r}.")
    return own[key][0] if own[key] else None


def read_config(path: Path) -> dict[str, Any]:
    """A YAML config file. Raises `UserError` naming file and line."""
    try:
        content = yaml.safe_load(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config file {str(path)!r}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of options; found {type(content).__name__}.")
    return content or {}


def execute(config: RunConfig, folder: Path, console: Console = AUTO) -> int:
    """Run the stage in `folder`: anew, going on, or, if it is completed, showing its result; the exit code.

    Raises `UserError` for what the user can mend, and any other error as it is.
    """
    run = Run(folder, config.stage, config.seed, console=console)
    extended = check_folder(config, folder)
    result = run.result()
    if result is not None and result["status"] == "completed" and not extended:
        run.say(f"{folder} is completed; nothing is left to do (more --optim.steps would extend it).")
        show_end(run)
        return 0
    config = with_choice(config, folder)
    run.open(config.to_yaml())
    if extended:
        run.extend()
        run.warn(extended)
    run.say(f"{config.stage} in {folder}")
    try:
        with Interruptions(at_once=True):
            STAGES.get(config.stage)(config, run, **config.own)
    except Exception as error:
        with Interruptions():  # a launcher ends all processes of a run when one has died: why is written down first
            fail(run, error)
    except KeyboardInterrupt as interrupt:
        with Interruptions():
            if is_lost_process(cause := interrupt.__context__):  # the launcher's SIGTERM met the error on its way
                fail(run, cause)
            record_end(run, "interrupted")
            run.say(f"interrupted; the same command with --run_dir {folder} goes on.")
            return INTERRUPTED
    finally:
        run.close()
    show_end(run)
    return 0


def show_end(run: Run) -> None:
    """The result, where to look, and what to do next: the part that goes to standard output."""
    from vision_mtl.stages.report import result_text  # late: --help needs no report

    result = run.result()
    if result is None or not run.is_main:
        return
    if text := result_text(result):
        run.show(text)
    run.show(steps_text(run.stage, run.folder, result["data"]))
    steps = {"look": where_to_look(run.stage, run.folder), "next": what_next(run.stage, run.folder, result["data"])}
    run.console.result({"run_dir": str(run.folder), **result, **steps})


def fail(run: Run, error: Exception) -> NoReturn:
    """Record that the run ended with `error`, and raise it: as `UserError` if the user can act on it."""
    known = mendable(error, run.folder)
    record_end(run, "failed", str(known) if known is not None else f"{type(error).__name__}: {error}")
    if known is None:
        run.say(
            "this is a fault of vision_mtl, not of yours: please report what follows, with config.yaml and "
            f"environment.json of {run.folder}."
        )
    if known is None or known is error:
        raise error
    raise known from error


def record_end(run: Run, status: str, error: str | None = None) -> None:
    """Write the result of a run that did not end well; the disk that ended it may refuse even that."""
    try:
        run.write_result(status, error=error)
    except UserError as failed:
        run.say(f"result.json could not be written: {failed}")


def mendable(error: Exception, folder: Path) -> UserError | None:
    """The error as one that the user can act on, if it is: of memory, of the disk, of the limits of the machine."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return out_of_memory("outside of training; what was trained is saved")
    if is_lost_process(error):
        return UserError(
            "another process of this run has ended, or cannot be reached: see its own message above. The last "
            f"checkpoint is whole, and the same command goes on from it ({' '.join(str(error).split())[:200]})."
        )
    if isinstance(error, OSError) and error.errno in MACHINE:
        return disk_error(Path(error.filename or folder), 0, error)
    return None


def is_lost_process(error: BaseException | None) -> TypeGuard[RuntimeError]:
    """Whether it is PyTorch's word for a process of this run that cannot be reached."""
    return isinstance(error, RuntimeError) and any(sign in f"{type(error).__name__} {error}" for sign in LOST_PROCESS)


def look(config: RunConfig, console: Console) -> int:
    """Run a stage that looks at a run and writes none."""
    run = Run(Path(config.init_from or "."), config.stage, config.seed, console=console)
    try:
        with Interruptions(at_once=True):
            STAGES.get(config.stage)(config, run, **config.own)
    except KeyboardInterrupt:
        run.say("ended.")
        return INTERRUPTED
    return 0


def _looked_at(folder: str, init_from: list[str | None]) -> str:
    """The run that `--run_dir` names; raises `UserError` if `--init_from` names another."""
    if init_from[-1] is not None and Path(init_from[-1]).expanduser().resolve() != Path(folder).expanduser().resolve():
        raise UserError(
            f"--run_dir {folder} and --init_from {init_from[-1]} name two runs, and this stage writes none: "
            "give the one to look at."
        )
    return folder


def check_folder(config: RunConfig, folder: Path) -> str | None:
    """None if the folder is new or holds this very run; text if this run with more steps or seeds; else raises
    `UserError`."""
    path = folder / CONFIG
    if not path.exists():
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        strangers = [name for name in entries if name not in OWN_FILES and not re.fullmatch(LEFTOVER, name)]
        if strangers:
            raise UserError(
                f"--run_dir {str(folder)!r} holds other files ({strangers[0]}, ...) and no {CONFIG}; choose another."
            )
        return None
    before, now = flat(read_config(path)), flat(yaml.safe_load(config.to_yaml()))
    changed = [
        key
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in HOW and not key.startswith(TUNED)
    ]
    if not changed:
        return None
    old, new = before.get("optim.steps"), now.get("optim.steps")
    if changed == ["optim.steps"] and old is not None and new is not None and new > old:
        return f"extended from {old} to {new} steps."
    old, new = before.get("study.seeds"), now.get("study.seeds")
    if changed == ["study.seeds"] and old == new[: len(old)]:
        return (
            f"{len(new) - len(old)} seeds were added to {len(old)}: the intervals hold only if that was not decided by "
            "what the first ones showed."
        )
    lines = "\n".join(f"  {key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in sorted(changed))
    raise UserError(
        f"--run_dir {str(folder)!r} holds another run; these options differ:\n{lines}\n"
        "Give the same ones to go on (more --optim.steps extends it, more --study.seeds a study), or another --run_dir."
    )

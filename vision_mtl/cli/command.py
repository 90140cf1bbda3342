"""The command line: words in, one stage run in a folder, an exit code out.

0: done. 1: a fault of ours (with a traceback). 2: something the user can mend (one message). 130: interrupted by SIGINT
(Ctrl-C) or SIGTERM; the same command goes on from where it stopped, so a scheduler can start it again.
"""

from __future__ import annotations

import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from vision_mtl import __version__
from vision_mtl.cli.help import help_text, stage_list
from vision_mtl.config.plugins import load_plugins
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.console import AUTO, Console, silent_libraries
from vision_mtl.core.errors import UserError
from vision_mtl.core.interruptions import INTERRUPTED, Interruptions
from vision_mtl.core.run import is_main_process

COMMAND_OPTIONS = ("stage", "config", "run_dir", "plugins", "print_config", "console", "help", "version")


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
    load_plugins(own.get("plugins", []))
    stage = _one(own, "stage")
    if "help" in own:
        print(help_text(stage))
        return 0
    config_file = _one(own, "config")
    file = read_config(Path(config_file)) if config_file else {}
    stage = stage or file.get("stage")
    if stage is None:
        raise UserError(f"which stage? Give --stage NAME:\n{stage_list()}")
    return _run(str(stage), file, given, own, console)


def _run(
    stage: str, file: dict[str, Any], given: dict[str, list[str]], own: dict[str, list[str]], console: Console
) -> int:
    from vision_mtl.cli.execute import execute, look  # late: they import PyTorch, which --help must not wait for
    from vision_mtl.config.resolve import resolve
    from vision_mtl.config.stage import STAGES

    kind, run_dir = STAGES.get(stage), _one(own, "run_dir")
    if run_dir and not kind.writes_run:
        given["init_from"] = [_run_to_look_at(run_dir, given.get("init_from") or [file.get("init_from")])]
    config = resolve(stage, file, given)
    if "print_config" in own:
        print(config.to_yaml(), end="")
        return 0
    if not kind.writes_run:
        return look(config, console)
    return execute(config, Path(run_dir or f"runs/{stage}-{datetime.now():%Y%m%d-%H%M%S}").expanduser(), console)


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
            current = found[_underscored(key)] = [value] if equals else []
        elif current is None:
            raise UserError(f"options begin with --; found {word!r}. See --help.")
        else:
            current.append(word)
    return found


def _underscored(key: str) -> str:
    """`run-dir` means `run_dir`; names of tasks and pretexts keep their hyphens."""
    parts = key.split(".")
    named = 1 if parts[0] in ("tasks", "pretexts") else None
    return ".".join(part if number == named else part.replace("-", "_") for number, part in enumerate(parts))


def _one(own: dict[str, list[str]], key: str) -> str | None:
    if key not in own:
        return None
    if len(own[key]) != 1 and not (key == "stage" and "help" in own):
        raise UserError(f"option --{key} takes one value; found {' '.join(own[key])!r}.")
    return own[key][0] if own[key] else None


def _run_to_look_at(folder: str, init_from: list[str | None]) -> str:
    """The run that `--run_dir` names; raises `UserError` if `--init_from` names another."""
    if init_from[-1] is not None and Path(init_from[-1]).expanduser().resolve() != Path(folder).expanduser().resolve():
        raise UserError(
            f"--run_dir {folder} and --init_from {init_from[-1]} name two runs, and this stage writes none: "
            "give the one to look at."
        )
    return folder

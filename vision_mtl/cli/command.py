"""The command line: parse words, run one stage in a folder, return an exit code.

0: done. 1: a bug in vision_mtl (with a traceback). 2: an error that the user can fix (one message). 130: interrupted by
SIGINT (Ctrl-C) or SIGTERM; the same command resumes the run, so a scheduler can start it again. 141: the reader of
`--help`, `--version` or `--print_config` has gone (`| head`). A run continues without a reader: its folder has all.
"""

from __future__ import annotations

import sys
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from vision_mtl import __version__
from vision_mtl.cli.help import help_text, stage_list
from vision_mtl.config import COMMAND_OPTIONS
from vision_mtl.config.plugins import load_plugins
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.console import AUTO, Console, silent_libraries
from vision_mtl.core.errors import UserError
from vision_mtl.core.interruptions import INTERRUPTED, Interruptions
from vision_mtl.core.run import is_main_process
from vision_mtl.core.streams import BROKEN_PIPE, prepare_streams, write
from vision_mtl.core.text import encodable

Words = dict[str, list[str]]  # option -> the words after it


def main(words: list[str]) -> int:
    """Run the command and return its exit code. Bugs are raised, except with `--console json`, which reports them."""
    console = AUTO
    prepare_streams()
    try:
        given = split_words(words)
        console = Console.of(_single(given, "console") or AUTO.mode)
        with silent_libraries():
            code = _command(given, console)
    except UserError as error:
        with Interruptions():  # print the error before a signal ends the process, as in `execute`
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


def _command(words: Words, console: Console) -> int:
    own = {key: words.pop(key) for key in COMMAND_OPTIONS if key in words}
    if "version" in own:
        return _print(__version__)
    load_plugins(own.get("plugins", []))
    stage = _single(own, "stage")
    if "help" in own:
        return _print(help_text(stage))
    config_file = _single(own, "config")
    file = read_config(Path(config_file)) if config_file else {}
    stage = stage or file.get("stage")
    if stage is None:
        raise UserError(f"which stage? Give --stage NAME:\n{stage_list()}")
    return _run(str(stage), file, words, own, console)


def _run(stage: str, file: dict[str, Any], words: Words, own: Words, console: Console) -> int:
    from vision_mtl.cli.execute import execute, look  # late: they import PyTorch, which --help does not need
    from vision_mtl.config.resolve import resolve
    from vision_mtl.config.stage import STAGES

    kind, run_dir = STAGES.get(stage), _single(own, "run_dir")
    if run_dir and not kind.writes_run:
        _refuse_two_runs(run_dir, words["init_from"][-1] if words.get("init_from") else file.get("init_from"))
        words["init_from"] = [run_dir]
    folder = Path(run_dir or f"runs/{stage}-{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    config = resolve(stage, file, words, folder=folder if kind.writes_run else None)
    if "print_config" in own:
        text = config.to_yaml()
        can_print = encodable(text, sys.stdout.encoding) == text
        return _print((text if can_print else config.to_yaml(ascii_only=True)).rstrip("\n"))
    if not kind.writes_run:
        return look(config, console)
    return execute(config, folder, console)


def _print(text: str) -> int:
    """Print what the command asks for; return the exit code."""
    return 0 if write(sys.stdout, text) else BROKEN_PIPE


def split_words(words: list[str]) -> Words:
    """Return the words after each option; the last of a repeated option counts.

    Raises `UserError` for a word before the first option.

    >>> split_words(["--optim.betas", "0.9", "0.95", "--seed=3", "--data.clean"])
    {'optim.betas': ['0.9', '0.95'], 'seed': ['3'], 'data.clean': []}
    """
    found: Words = {}
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
    """Return `run_dir` for `run-dir`; names of tasks and pretexts keep their hyphens."""
    parts = key.split(".")
    named = 1 if parts[0] in ("tasks", "pretexts") else None
    return ".".join(part if number == named else part.replace("-", "_") for number, part in enumerate(parts))


def _single(words: Words, key: str) -> str | None:
    """Return the value of an option that takes one; None if it was not given, or as `--stage --help`."""
    if key not in words:
        return None
    if len(words[key]) != 1 and not (key == "stage" and "help" in words):
        raise UserError(f"option --{key} takes one value; found {' '.join(words[key])!r}.")
    return words[key][0] if words[key] else None


def _refuse_two_runs(run_dir: str, init_from: object) -> None:
    if init_from is not None and Path(str(init_from)).expanduser().resolve() != Path(run_dir).expanduser().resolve():
        raise UserError(
            f"--run_dir {run_dir} and --init_from {init_from} name two runs; this stage reads one: give only one."
        )

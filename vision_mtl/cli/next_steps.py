"""The most useful files of a finished run and the commands to give next, as its stage declares them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_mtl.config.plugins import loaded_plugins
from vision_mtl.config.run_config import Hint, RunConfig
from vision_mtl.config.words import with_name, words_like
from vision_mtl.core.errors import UserError


def where_to_look(config: RunConfig, folder: Path) -> list[Hint]:
    """Return the declared results that exist in `folder`, with descriptions."""
    return [(str(folder / name), what) for name, what in config.options.results if (folder / name).exists()]


def what_next(config: RunConfig, folder: Path, result: Mapping[str, Any]) -> list[Hint]:
    """Return complete commands that follow the run in `folder`, with their purposes; `result` is that of the run.

    A command that would be refused, because a file is gone, is left out.
    """
    places, found = {"run": str(folder), "start": config.init_from}, []
    for step in config.options.next_commands:
        if not step.when(config, result):
            continue
        given = {name: [value.format(**places)] for name, value in step.options.items()}
        try:
            options = {"stage": [step.stage], **words_like(config, step.stage, given)}
        except UserError:
            continue
        if plugins := loaded_plugins():
            options["plugins"] = plugins
        words = [word for name, values in options.items() for word in with_name(name, values)]
        found.append((f"{_program()} {shlex.join(words)}", step.purpose))
    return found


def steps_text(config: RunConfig, folder: Path, result: Mapping[str, Any]) -> str:
    """Return both as text, each command on a separate line for copying."""
    look, then = where_to_look(config, folder), what_next(config, folder, result)
    width = max((len(path) for path, _ in look), default=0)
    lines = [f"results: {folder}"] + [f"  {path:<{width}}  {what}" for path, what in look]
    if then:
        lines += ["next:"] + [line for command, what in then for line in (f"  # {what}", f"  {command}")]
    return "\n".join(lines)


def _program() -> str:
    """Return the words that start this command again: the script, the installed program, or the package."""
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("vision_mtl", "__main__.py"):
        return "python -m vision_mtl"
    if started.stem == "vision_mtl":
        return "vision_mtl"
    return f"python {shlex.quote(sys.argv[0])}" if started.name == "train.py" else "python train.py"

"""The most useful files of a finished run and the commands to give next, as its stage declares them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_mtl.config.run_config import Hint
from vision_mtl.config.stage import STAGES


def where_to_look(stage: str, folder: Path) -> list[Hint]:
    """Return the declared results that exist in `folder`, with descriptions."""
    return [(str(folder / name), what) for name, what in STAGES.get(stage).results if (folder / name).exists()]


def what_next(stage: str, folder: Path, data: Mapping[str, Any]) -> list[Hint]:
    """Return complete commands that follow the run in `folder`, with their purposes; `data` is that of its result."""
    known = {
        "run": shlex.quote(str(folder)),
        "sources": " ".join(shlex.quote(source) for source in data.get("sources", [])),
        "tasks": "" if data.get("tasks") else " --tasks.NAME.source folder/PATH",
    }
    return [(f"python train.py {words.format(**known)}", what) for words, what in STAGES.get(stage).next_commands]


def steps_text(stage: str, folder: Path, data: Mapping[str, Any]) -> str:
    """Return both as text, each command on a separate line for copying."""
    look, then = where_to_look(stage, folder), what_next(stage, folder, data)
    width = max((len(path) for path, _ in look), default=0)
    lines = [f"results: {folder}"] + [f"  {path:<{width}}  {what}" for path, what in look]
    if then:
        lines += ["next:"] + [line for command, what in then for line in (f"  # {what}", f"  {command}")]
    return "\n".join(lines)

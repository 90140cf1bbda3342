"""How every benchmark writes its result: with command, commit, machine, date and the splits that it was computed on.

A result is quoted only if its commit contains the code that made it. So with uncommitted changes, or outside a git
checkout, the result goes to `NAME.uncommitted.json`, which git ignores and no table reads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vision_mtl.core.environment import environment
from vision_mtl.core.files import atomic_write_text
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool

RESULTS = Path(__file__).parent / "results"


def metadata() -> dict[str, Any]:
    """Return what a measurement depends on: command, commit, versions, machine, threads, date, and the load before."""
    return {
        **environment(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
    }


def splits_of(pool: Pool, data: Data, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return the entries `split_hash` and `split_options` of a result: the options open the same splits again."""
    return {"split_hash": pool.summary()["split_hash"], "split_options": changed_options(data, tasks)}


def changed_options(data: Data, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return the options of the images that differ from their defaults, as JSON holds them."""
    return {"data": _changed(data), "tasks": {name: _changed(task) for name, task in tasks.items()}}


def write(
    name: str, found: Mapping[str, Any], *, part: str | None = None, splits: Mapping[str, Any] | None = None
) -> Path:
    """Write `results/NAME.json`, or its entry `part` beside the others; return the path.

    `splits` are those of `splits_of`, for everything that is computed on held-out images.
    """
    whole = {**metadata(), **(splits or {}), **found}
    commit = whole["commit"]
    path = path_of(name, commit)
    if part is not None:
        before = json.loads(path.read_text("utf-8")) if path.exists() else {}
        whole = {**before, part: whole}
    atomic_write_text(path, json.dumps(whole, indent=1) + "\n")
    if not is_committed(commit):
        print(f"not committed: {path.name} is not for quoting; commit, then run again", file=sys.stderr)
    return path


def path_of(name: str, commit: str | None) -> Path:
    """Return the file of a result that the code of `commit` writes."""
    return RESULTS / (f"{name}.json" if is_committed(commit) else f"{name}.uncommitted.json")


def is_committed(commit: str | None) -> bool:
    """Return True if `commit` is the whole of the code: known, and without changes beside it."""
    return commit is not None and not commit.endswith("+changes")


def _changed(options: Data | Task) -> dict[str, Any]:
    """Return the options that differ from their defaults; `root`, where files lie, changes no split."""
    rows = {field.name: (getattr(options, field.name), field.default) for field in dataclasses.fields(options)}
    return {name: value for name, (value, default) in rows.items() if value != default and name != "root"}

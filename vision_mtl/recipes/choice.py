"""What `--runtime.tune` chose, in a run's `config.yaml`: written once, taken over when the run goes on.

Imports nothing heavy: the command line reads it before the run begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from vision_mtl.config.resolve import RunConfig
from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import CONFIG

TUNED = "runtime.tuned"


def stored_choice(folder: Path) -> dict[str, Any]:
    """The choice in the folder's `config.yaml`; empty if there is none."""
    try:
        content = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    runtime = content.get("runtime") if isinstance(content, Mapping) else None
    return dict((runtime or {}).get("tuned") or {})


def with_choice(config: RunConfig, folder: Path) -> RunConfig:
    """The config with the choice that its run has made already, if it made one."""
    found = stored_choice(folder) if config.runtime and not config.runtime.get("tuned") else {}
    return replace(config, runtime={**config.runtime, "tuned": found}) if found else config


def store_choice(config: RunConfig, folder: Path, choice: Mapping[str, Any]) -> None:
    """Write the config anew, with the choice."""
    atomic_write_text(folder / CONFIG, replace(config, runtime={**config.runtime, "tuned": dict(choice)}).to_yaml())

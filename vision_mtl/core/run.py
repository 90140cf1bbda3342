"""The folder of one run: its config, log and result.

A run folder holds `config.yaml`, `environment.json`, `metrics.jsonl` (one JSON object per line), TensorBoard events,
`checkpoints/`, `figures/` and `result.json`. With several processes only the first writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vision_mtl.core.console import AUTO, Console
from vision_mtl.core.environment import environment
from vision_mtl.core.files import atomic_write_json, atomic_write_text, disk_error, remove_leftovers
from vision_mtl.core.run_lock import RunLock

RESULT, CONFIG, METRICS, ENVIRONMENT = "result.json", "config.yaml", "metrics.jsonl", "environment.json"
TRAIN, RESUME = "train", "resume"  # kinds of lines in metrics.jsonl


def is_main_process() -> bool:
    """Return True in a single process, and in the first of several (accelerate and torchrun set `RANK`)."""
    return os.environ.get("RANK", "0") == "0"


@dataclass
class Run:
    """Writes the folder of one run, which is created on first use."""

    folder: Path
    stage: str
    seed: int = 0
    warnings: list[str] = field(default_factory=list)
    is_main: bool = field(default_factory=is_main_process)
    console: Console = AUTO
    launch: Callable[..., int] | None = None  # runs another stage in a folder, for a study; returns the exit code
    extends: bool = False  # more steps for a completed run, which does not count as a resume
    about: dict[str, Any] = field(default_factory=dict)  # further entries of result.json
    _lock: RunLock | None = field(default=None, repr=False)

    def part(self, folder: Path) -> Run:
        """Return a run inside this one, with its own folder and warnings and the same stage, seed and console."""
        return Run(folder, self.stage, self.seed, console=self.console)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, which may not exist yet."""
        return self.folder / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of figures, created if it is missing."""
        folder = self.folder / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def open(self, config_text: str) -> None:
        """Lock the folder, write config and environment. Raises `UserError` if another process holds the lock."""
        if not self.is_main:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(self.folder, 0, error) from error
        self._lock = RunLock(self.folder)
        if self._lock.stale:
            self.say(f"note: {self._lock.stale}")
        remove_leftovers(self.folder)
        atomic_write_text(self.folder / CONFIG, config_text)
        atomic_write_json(self.folder / ENVIRONMENT, environment())

    def close(self) -> None:
        """Release the lock on the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def speaker(self) -> Console | None:
        """The console in the main process; None in the others."""
        return self.console if self.is_main else None

    def say(self, text: str) -> None:
        """Print a message on standard error."""
        if self.is_main:
            self.console.say(text)

    def show(self, text: str) -> None:
        """Print a part of the result on standard output."""
        if self.is_main:
            self.console.show(text)

    def warn(self, text: str) -> None:
        """Print a warning once and keep it for `result.json`."""
        if text not in self.warnings:
            self.warnings.append(text)
            if self.is_main:
                self.console.warn(text)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl`. Non-finite numbers become null, so that every line is valid JSON.

        Raises `UserError` if the write fails.
        """
        if not self.is_main:
            return
        try:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(record), allow_nan=False) + "\n")
        except OSError as error:
            raise disk_error(self.folder / METRICS, 200, error) from error

    def flush(self) -> None:
        """Flush `metrics.jsonl` to disk, so that after a power loss no checkpoint is ahead of the log."""
        path = self.folder / METRICS
        if self.is_main and path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`, without a last line that a crash cut off."""
        path = self.folder / METRICS
        found = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @property
    def last_step(self) -> int:
        """The last logged training step; 0 before the first."""
        return max((record["step"] for record in self.records() if record.get("kind") == TRAIN), default=0)

    def resume_from(self, step: int) -> int:
        """Delete the records after `step`, where training resumes; return how many logged steps are repeated.

        Adds a line of kind `resume`, unless the run is extended. Steps after the last logged step are not counted.
        """
        if not self.is_main:
            return 0
        repeated = max(self.last_step - step, 0)
        self.rewind(step)
        if self.extends:
            return 0
        self.log({"kind": RESUME, "step": step, "repeated_steps": repeated})
        return repeated

    def rewind(self, step: int) -> None:
        """Delete the records after `step`, which training will write again; lines of kind `resume` stay."""
        path = self.folder / METRICS
        if self.is_main and path.exists():
            kept = [r for r in self.records() if r.get("step", 0) <= step or r.get("kind") == RESUME]
            atomic_write_text(path, "".join(json.dumps(record) + "\n" for record in kept))

    def resumes(self) -> list[dict[str, Any]]:
        """Return the lines of kind `resume`; those of a second network trained in this run have a key `network`."""
        return [record for record in self.records() if record.get("kind") == RESUME]

    def result(self) -> dict[str, Any] | None:
        """Return the content of `result.json`, or None if it is missing or damaged."""
        try:
            return json.loads((self.folder / RESULT).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def extend(self) -> None:
        """Mark the run as extended and delete the `result.json` of the shorter run, in case this one is killed."""
        self.extends = True
        if self.is_main:
            (self.folder / RESULT).unlink(missing_ok=True)

    def write_result(
        self,
        status: str,
        *,
        metrics: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        seconds: float = 0.0,
        images_seen: int = 0,
        images_per_second: float = 0.0,
        error: str | None = None,
        parts: Sequence[Run] = (),
    ) -> None:
        """Write `result.json`. `status` is completed, interrupted or failed; `error` is the reason for a failure.

        `parts` are the runs inside this one that train, if it does not train itself: their resumes count.
        """
        if not self.is_main:
            return
        resumes = [part.resumes() for part in parts or [self]]
        result = {
            "stage": self.stage,
            "status": status,
            "seed": self.seed,
            "seconds": round(seconds, 3),
            "images_seen": images_seen,
            "images_per_second": round(images_per_second, 2),
            "data": data or {},
            "resumes": max(sum("network" not in record for record in found) for found in resumes),
            "repeated_steps": sum(record["repeated_steps"] for found in resumes for record in found),
            "warnings": self.warnings,
            "metrics": metrics or {},
            **self.about,
        }
        atomic_write_json(self.folder / RESULT, _finite(result | ({"error": error} if error else {})))


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinity replaced by None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value

"""How far a run has got, written after each step to a file that outlives the process, so that going on can be counted.

Checkpoints are minutes apart; without this, nobody could say how many steps a killed run repeats. A line is one write
of a few bytes into the system's cache: it survives the end of the process at any moment, if not a loss of power.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAME = ".reached.json"
LENGTH = 128  # bytes: a shorter text is filled up, so that a new one covers the old


@dataclass
class Reached:
    """`step` steps have been taken, `resumes` times was the run gone on with, `repeated_steps` were taken twice."""

    path: Path
    step: int = 0
    resumes: int = 0
    repeated_steps: int = 0

    @classmethod
    def read(cls, folder: Path) -> Reached:
        """What the folder's file says; zeros where there is none that can be read."""
        path = folder / NAME
        try:
            values = json.loads(path.read_text("utf-8"))
            step, resumes, repeated = (int(values[key]) for key in ("step", "resumes", "repeated_steps"))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)
        return cls(path, step, resumes, repeated)

    def go_on(self, step: int) -> int:
        """The run goes on after step `step`; returns how many steps it will repeat."""
        repeated = max(self.step - step, 0)
        self.resumes, self.repeated_steps = self.resumes + 1, self.repeated_steps + repeated
        self.to(step)
        return repeated

    def add_repeated(self, count: int) -> None:
        """So many steps were taken twice by what the run trains beside."""
        if count:
            self.repeated_steps += count
            self.to(self.step)

    def to(self, step: int) -> None:
        """Another step has been taken. A file that cannot be written costs the count, never the run."""
        self.step = step
        values = {"step": step, "resumes": self.resumes, "repeated_steps": self.repeated_steps}
        with suppress(OSError):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(handle, json.dumps(values).ljust(LENGTH - 1).encode() + b"\n", 0)
            finally:
                os.close(handle)

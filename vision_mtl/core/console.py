"""Console output of a run: the result on standard output, everything else on standard error, in one of four modes.

auto: a progress bar on a terminal, plain lines elsewhere. plain: lines everywhere. quiet: only errors and the result.
json: for programs; every line is a JSON object whose `event` is message, warning, progress or error (standard error)
or result (standard output). Every command writes exactly one result, also when it fails.

Names in a message may hold anything: control characters are shown as escapes, so they cannot change the terminal. A
closed terminal or pipe does not end a run.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vision_mtl.core.errors import unknown
from vision_mtl.core.streams import write
from vision_mtl.core.text import visible

Mode = Literal["auto", "plain", "quiet", "json"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Console:
    """Prints messages and results in one mode.

    It looks up `sys.stdout` and `sys.stderr` at each call, because a study redirects the output of its runs to files.
    """

    mode: Mode = "auto"

    @classmethod
    def of(cls, mode: str) -> Console:
        """Return the console of a mode. Raises `UserError` for an unknown mode, with the nearest name."""
        if mode not in MODES:
            raise unknown("value of console", mode, MODES)
        return cls(mode)

    @property
    def has_bar(self) -> bool:
        """True if progress is shown as a bar that is redrawn."""
        return self.mode == "auto" and sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a message."""
        self._write("message", text, text)

    def warn(self, text: str) -> None:
        """Print a warning; in quiet mode it stands in `result.json` only."""
        self._write("warning", text, f"warning: {text}")

    def progress(self, share: float, text: str) -> None:
        """Print how much of the work is done: `share` in [0, 1]."""
        self._write("progress", text, f"{share:4.0%}  {text}", share=round(share, 4))

    def error(self, text: str, exit_code: int, **more: str) -> None:
        """Print the error that ended the run, in every mode; json adds the fields `more` and a result line."""
        line = json.dumps({"event": "error", "text": text, "exit_code": exit_code, **more})
        write(sys.stderr, line if self.mode == "json" else visible(f"error: {text}"))
        self.result({"status": "failed", "error": text, "exit_code": exit_code})

    def show(self, text: str) -> None:
        """Print a part of the result as text, in every mode but json."""
        if self.mode != "json":
            write(sys.stdout, visible(text))

    def result(self, found: dict[str, Any]) -> None:
        """Print the result as one JSON line, in json mode."""
        if self.mode == "json":
            write(sys.stdout, json.dumps({"event": "result", **found}))

    def _write(self, event: str, text: str, plain: str, **more: float) -> None:
        if self.mode == "json":
            write(sys.stderr, json.dumps({"event": event, "text": text, **more}))
        elif self.mode != "quiet":
            write(sys.stderr, visible(plain))


AUTO = Console()


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Hide the warnings of other packages, and their log records below the level of an error.

    Users cannot act on them. PYTHONWARNINGS or python -W shows them again.
    """
    fallback = logging.lastResort  # prints the records of packages without a log handler
    level = fallback.level if fallback is not None else logging.WARNING
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # PyTorch's C++ code reads it when it is loaded
            if fallback is not None:
                fallback.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if fallback is not None:
                fallback.setLevel(level)

"""What a run says: its result on standard output, everything else on standard error, in one of four manners.

auto: for people; a progress bar on a terminal, plain lines elsewhere. plain: lines everywhere. quiet: errors and the
result. json: for machines; every line is a JSON object with `event` (message, warning, progress, error; result alone
goes to standard output, and there is one however the command ends).
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

Mode = Literal["auto", "plain", "quiet", "json"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Console:
    """The streams are those of the moment of writing: a study's runs have theirs go to files."""

    mode: Mode = "auto"

    @classmethod
    def of(cls, mode: str) -> Console:
        """The console of a manner; raises `UserError` naming the nearest for an unknown one."""
        if mode not in MODES:
            raise unknown("value of console", mode, MODES)
        return cls(mode)

    @property
    def has_bar(self) -> bool:
        """Whether progress is a bar that is redrawn."""
        return self.mode == "auto" and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """A message on the way."""
        self._aside("message", text, text)

    def warn(self, text: str) -> None:
        """A warning; quiet leaves it to `result.json`."""
        self._aside("warning", text, f"warning: {text}")

    def progress(self, share: float, text: str) -> None:
        """How far the work is: `share` in [0, 1]."""
        self._aside("progress", text, f"{share:4.0%}  {text}", share=round(share, 4))

    def error(self, text: str, exit_code: int, **more: str) -> None:
        """What ended the run; in every manner. Machines are told `more`, and the same as a result."""
        line = json.dumps({"event": "error", "text": text, "exit_code": exit_code, **more}, ensure_ascii=False)
        print(line if self.mode == "json" else f"error: {text}", file=sys.stderr, flush=True)
        self.result({"status": "failed", "error": text, "exit_code": exit_code})

    def show(self, text: str) -> None:
        """Part of the result, for people."""
        if self.mode != "json":
            print(text, flush=True)

    def result(self, found: dict[str, Any]) -> None:
        """The result, for machines."""
        if self.mode == "json":
            print(json.dumps({"event": "result", **found}, ensure_ascii=False), flush=True)

    def _aside(self, event: str, text: str, plain: str, **more: float) -> None:
        if self.mode == "json":
            print(json.dumps({"event": event, "text": text, **more}, ensure_ascii=False), file=sys.stderr, flush=True)
        elif self.mode != "quiet":
            print(plain, file=sys.stderr, flush=True)


AUTO = Console()


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Keep other packages' warnings, and log records below an error, from the user, who cannot act on them.

    What the user should know we say ourselves. PYTHONWARNINGS and python -W bring them back.
    """
    fallback = logging.lastResort  # prints records of packages for which nobody has set up logging
    level = fallback.level if fallback is not None else logging.WARNING
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read by PyTorch's own code when it is loaded
            if fallback is not None:
                fallback.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if fallback is not None:
                fallback.setLevel(level)

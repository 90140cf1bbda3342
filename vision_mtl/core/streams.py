"""The standard streams of a process: of any encoding, closed from the start, or closed by their reader meanwhile.

A run's results are in its folder, so a closed terminal or pipe never ends a run: what would be printed is dropped.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from vision_mtl.core.text import encodable

BROKEN_PIPE = 141  # exit code of a command whose reader has gone before it printed all, as the shell shows it for `cat`
NAMES = ("stdin", "stdout", "stderr")  # by number of the file descriptor


def prepare_streams() -> None:
    """Open closed standard streams on nothing, and print characters that an encoding lacks as escapes.

    Otherwise the next file that is opened, perhaps a checkpoint, would get the number of standard output.
    """
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            _open_nothing(number)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115, until the process ends
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write(stream: TextIO | None, text: str, end: str = "\n") -> bool:
    """Print text at once, in any encoding; return False if nobody reads the stream any more, which is then silent."""
    if stream is None:
        return False
    try:
        print(encodable(text, getattr(stream, "encoding", None)), file=stream, end=end, flush=True)
    except (OSError, ValueError):  # the reader or the terminal is gone, or the stream was closed
        with suppress(OSError, ValueError):
            _open_nothing(stream.fileno())  # or Python would try again at its end, and fail
        return False
    return True


class LastingStream:
    """A stream for other libraries: writing to it works with any encoding, and when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it; return its length."""
        write(self.stream, text, end="")
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` flushes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _open_nothing(number: int) -> None:
    """Make the file descriptor `number` one that drops what is written and is empty to read."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)

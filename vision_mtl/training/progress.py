"""Show progress on the console: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from vision_mtl.core.console import AUTO, Console
from vision_mtl.core.streams import LastingStream
from vision_mtl.core.text import visible

WORTH_TELLING = 5.0  # seconds that a report is old
TEXT = "{task.percentage:>3.0f} %  {task.description}"  # without markup: names may contain brackets


class ProgressLine:
    """A progress bar on a terminal, a plain line every `PLAIN_SECONDS` elsewhere, and nothing without a console.

    Lines are printed on time even if the work reports nothing meanwhile: they repeat its last report, with the time
    since then.
    """

    PLAIN_SECONDS = 15.0

    def __init__(self, console: Console | None = AUTO) -> None:
        self.console, self.last = console, time.monotonic()
        self.share, self.text, self.since = 0.0, "", self.last
        self.rich: Progress | None = None
        self._over, self._printing = threading.Event(), threading.Lock()
        if console is not None and console.has_bar:
            columns = BarColumn(bar_width=20), TextColumn(TEXT, markup=False), TimeElapsedColumn()
            # sys.stderr as it is now: a study redirects it while it runs other stages
            stream = cast(TextIO, LastingStream(sys.stderr))
            self.rich = Progress(*columns, console=RichConsole(file=stream), transient=True)
            self.task = self.rich.add_task("", total=1.0)
            self.rich.start()
        elif console is not None and console.mode != "quiet":
            threading.Thread(target=_repeat, args=(weakref.ref(self), self._over), daemon=True).start()

    def update(self, share: float, text: str) -> None:
        """Show `text` and a bar filled to `share` in [0, 1]."""
        self.share, self.text, self.since = share, text, time.monotonic()
        if self.rich is not None:
            self.rich.update(self.task, completed=share, description=visible(text))
        else:
            self.print_if_due()

    def close(self) -> None:
        """Remove the bar."""
        self._over.set()
        if self.rich is not None:
            self.rich.stop()

    def print_if_due(self) -> None:
        """Print a plain line if the last one is `PLAIN_SECONDS` ago."""
        with self._printing:
            now = time.monotonic()
            if self.console is None or not self.text or now - self.last < self.PLAIN_SECONDS or self._over.is_set():
                return
            self.last = now
            waited = f" (for {now - self.since:.0f} s)" if now - self.since >= WORTH_TELLING else ""
            self.console.progress(self.share, f"{self.text}{waited}")


def _repeat(line: weakref.ref[ProgressLine], over: threading.Event) -> None:
    """Print a line whenever one is due, until the work is over or the line is gone; runs in a thread."""
    while not over.wait(min(ProgressLine.PLAIN_SECONDS, 1.0)):
        if (found := line()) is None:
            return
        found.print_if_due()
        del found  # the thread keeps no line alive


@contextmanager
def phase(console: Console | None, what: str) -> Iterator[Callable[[float, str], None]]:
    """Show that `what` goes on; the value is a function that shows the share done and a detail."""
    line = ProgressLine(console)
    line.update(0.0, what)
    try:
        yield lambda share, text: line.update(share, f"{what}: {text}")
    finally:
        line.close()


class DataProgress:
    """A context whose value is the progress callback (what, done, total) for building a pool."""

    def __init__(self, console: Console | None = AUTO) -> None:
        self.console = console
        self.what = ""

    def __enter__(self) -> DataProgress:
        self.line = ProgressLine(self.console)
        self.line.update(0.0, "listing images")
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.what = what
            if self.console is not None and self.line.rich is None and what.startswith(("decoding", "waiting")):
                self.console.say(f"{what} ({total:,} images)" if total else what)
        self.line.update(done / max(total, 1), what)

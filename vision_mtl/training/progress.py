"""Show progress on the console: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

from vision_mtl.core.console import AUTO, Console
from vision_mtl.core.streams import LastingStream
from vision_mtl.core.text import visible

TEXT = "{task.percentage:>3.0f} %  {task.description}"  # without markup: names may contain brackets


class ProgressLine:
    """A progress bar on a terminal, a plain line every `PLAIN_SECONDS` elsewhere, and nothing without a console."""

    PLAIN_SECONDS = 15.0

    def __init__(self, console: Console | None = AUTO) -> None:
        self.console, self.last = console, time.monotonic()
        self.rich: Progress | None = None
        if console is not None and console.has_bar:
            columns = BarColumn(bar_width=20), TextColumn(TEXT, markup=False)
            # sys.stderr as it is now: a study redirects it while it runs other stages
            stream = cast(TextIO, LastingStream(sys.stderr))
            self.rich = Progress(*columns, console=RichConsole(file=stream), transient=True)
            self.task = self.rich.add_task("", total=1.0)
            self.rich.start()

    def update(self, share: float, text: str) -> None:
        """Show `text` and a bar filled to `share` in [0, 1]."""
        if self.rich is not None:
            self.rich.update(self.task, completed=share, description=visible(text))
        elif self.console is not None and time.monotonic() - self.last >= self.PLAIN_SECONDS:
            self.last = time.monotonic()
            self.console.progress(share, text)

    def close(self) -> None:
        """Remove the bar."""
        if self.rich is not None:
            self.rich.stop()


class DataProgress:
    """A context whose value is the progress callback (what, done, total) for building a pool."""

    def __init__(self, console: Console | None = AUTO) -> None:
        self.console = console
        self.what = ""

    def __enter__(self) -> DataProgress:
        self.line = ProgressLine(self.console)
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.what = what
            if self.console is not None and self.line.rich is None and what.startswith(("decoding", "waiting")):
                self.console.say(f"{what} ({total:,} images)" if total else what)
        self.line.update(done / max(total, 1), what)

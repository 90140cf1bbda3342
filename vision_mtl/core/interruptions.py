"""Signals: what Ctrl-C and a scheduler's messages do to a run.

While a run trains they ask, and the loop answers between two steps, when everything is whole: SIGINT (Ctrl-C) and
SIGTERM to save and stop, SIGUSR1 to save and go on. Elsewhere SIGINT and SIGTERM stop where they meet the run, and
SIGUSR1 does nothing (left to the system it would end the process). A second SIGINT or SIGTERM leaves at once; what was
saved before stays valid, because files are whole or absent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit code of a run that was interrupted and can go on
STOP = ("SIGINT", "SIGTERM")
SAVE = "SIGUSR1"  # not on Windows


class Interruptions:
    """A `with` block in which signals are noted in `stop` and `save`; with `at_once`, `stop` raises as well.

    `say` is told, where a signal is only noted, what comes next. Raises `KeyboardInterrupt`. Only the main thread may
    set handlers; in another one nothing is changed.
    """

    def __init__(self, at_once: bool = False, say: Callable[[str], None] | None = None) -> None:
        self.stop = self.save = False
        self.at_once, self.say = at_once, say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for name in (*STOP, SAVE):
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            around = getattr(handler, "__self__", None)
            if isinstance(around, Interruptions):
                around.stop |= self.stop  # so that a second signal is known as such outside, too

    def take_save(self) -> bool:
        """Whether a save has been asked for since the last call."""
        asked, self.save = self.save, False
        return asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == SAVE:
            self.save = True
            return
        if self.stop:
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        self.stop = True
        if self.at_once:
            raise KeyboardInterrupt
        if self.say is not None:
            self.say("stopping after this step; once more to leave at once.")

"""Signal handling: Ctrl-C and the signals of a scheduler.

During training a signal sets a flag that the loop reads between two steps: SIGINT (Ctrl-C) and SIGTERM save and stop,
SIGUSR1 saves and continues. Outside training SIGINT and SIGTERM stop the run at once, and SIGUSR1 is ignored (the
system's default would end the process). A second SIGINT or SIGTERM ends the process at once; saved checkpoints stay
valid, because writes are atomic.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit code of an interrupted run, which can be resumed
STOP = ("SIGINT", "SIGTERM")
SAVE = "SIGUSR1"  # not on Windows


class Interruptions:
    """A `with` block in which signals set `stop` or `save`.

    With `at_once` a stop signal also raises `KeyboardInterrupt`; without, `say` prints that the run stops after this
    step. Only the main thread can set handlers; in other threads the block changes nothing.
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
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interruptions):
                outer.stop |= self.stop  # the outer block then recognises a second signal

    def take_save(self) -> bool:
        """Return True if SIGUSR1 arrived since the last call, and reset `save`."""
        requested, self.save = self.save, False
        return requested

    def _note(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == SAVE:
            self.save = True
            return
        if self.stop:
            with suppress(AttributeError, OSError, ValueError):  # closed
                sys.stdout.flush()
            os._exit(INTERRUPTED)
        self.stop = True
        if self.at_once:
            raise KeyboardInterrupt
        if self.say is not None:
            self.say("stopping after this step; press Ctrl-C again to stop at once.")

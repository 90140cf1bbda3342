"""Reading ahead: what the next steps need is made by threads while this one trains, and no more than is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

BUFFER_BYTES = 1 << 30  # of images that are read ahead, at most, or one step where a step is larger
T = TypeVar("T")


class Ahead(Generic[T]):
    """`at(step)` is `make(step)`, a pure function, whatever was asked for before.

    Steps are made in order by `num_workers` threads, at most `depth` of them after the one last asked for: a thread
    that is too fast waits. What `make` raises is raised by the `at` that asks for its step. Threads begin with the
    first `at`, and again with one after `close`.
    """

    def __init__(self, make: Callable[[int], T], depth: int, num_workers: int, name: str = "ahead") -> None:
        self.make, self.depth, self.num_workers, self.name = make, depth, num_workers, name
        self._threads: ThreadPoolExecutor | None = None
        self._begun: dict[int, Future[T]] = {}  # by step, in order

    def at(self, step: int) -> T:
        """What `step` needs, and the next ones begun."""
        if next(iter(self._begun), None) != step:
            self._drop()
        for wanted in range(step, step + self.depth + 1):
            self._begin(wanted)
        return self._begun.pop(step).result()

    def ready(self, step: int) -> T | None:
        """What `step` needs, if it is made already; it stays here."""
        begun = self._begun.get(step)
        return begun.result() if begun is not None and begun.done() and begun.exception() is None else None

    def settle(self) -> None:
        """Wait until all that has begun is made: for a clock that must not miss it."""
        wait(self._begun.values())

    def close(self) -> None:
        """End the threads; what is being made is waited for and dropped."""
        self._drop()
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None

    def _begin(self, step: int) -> None:
        if step in self._begun:
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix=self.name)
        self._begun[step] = self._threads.submit(self.make, step)

    def _drop(self) -> None:
        wait([begun for begun in self._begun.values() if not begun.cancel()])
        self._begun = {}


def plan(step_bytes: int, num_workers: int) -> tuple[int, int]:
    """(depth, threads) for steps of so many bytes and `num_workers` threads, 0: one a core."""
    workers = num_workers or os.cpu_count() or 1
    depth = max(1, min(workers + 1, BUFFER_BYTES // max(step_bytes, 1)))
    return depth, min(workers, depth)

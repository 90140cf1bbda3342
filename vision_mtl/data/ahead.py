"""Prefetching: threads prepare the next steps while the current one trains, up to a bounded number."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

BUFFER_BYTES = 1 << 30  # limit on prefetched images; a single larger step is allowed
T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls `make(step)`, a pure function, in threads before `at(step)` needs the result.

    `num_workers` threads make the steps in order, at most `depth` steps after the last one returned. An exception of
    `make` is raised by the `at` of its step. The first `at` starts the threads, also after `close`.
    """

    def __init__(self, make: Callable[[int], T], depth: int, num_workers: int, name: str = "ahead") -> None:
        self.make, self.depth, self.num_workers, self.name = make, depth, num_workers, name
        self._threads: ThreadPoolExecutor | None = None
        self._started: dict[int, Future[T]] = {}  # by step, in order

    def at(self, step: int) -> T:
        """Return the result for `step` and start the next steps."""
        if next(iter(self._started), None) != step:
            self._drop()
        for wanted in range(step, step + self.depth + 1):
            self._start(wanted)
        return self._started.pop(step).result()

    def ready(self, step: int) -> T | None:
        """Return the result for `step` if it is finished, else None; it stays available for `at`."""
        started = self._started.get(step)
        return started.result() if started is not None and started.done() and started.exception() is None else None

    def settle(self) -> None:
        """Wait until all started steps are finished, so that timings include them."""
        wait(self._started.values())

    def close(self) -> None:
        """Stop the threads; wait for running steps and drop their results."""
        self._drop()
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None

    def _start(self, step: int) -> None:
        if step in self._started:
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.num_workers, thread_name_prefix=self.name)
        self._started[step] = self._threads.submit(self.make, step)

    def _drop(self) -> None:
        wait([started for started in self._started.values() if not started.cancel()])
        self._started = {}


def plan(step_bytes: int, num_workers: int) -> tuple[int, int]:
    """Return (depth, number of threads) for steps of `step_bytes` bytes; `num_workers` 0 means one per core."""
    workers = num_workers or os.cpu_count() or 1
    depth = max(1, min(workers + 1, BUFFER_BYTES // max(step_bytes, 1)))
    return depth, min(workers, depth)

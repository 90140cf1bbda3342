"""Thread pools for many small jobs, which cancel pending jobs on an error or Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MAX_SUBMITTED = 1024  # jobs submitted at a time
S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def threads(num_workers: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of `num_workers` threads (0: one per core); its end waits for running jobs and drops the others."""
    pool = ThreadPoolExecutor(num_workers or os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yield `work(item)` in the order of the items; at most `MAX_SUBMITTED` are submitted, which bounds the memory."""
    for start in range(0, len(items), MAX_SUBMITTED):
        yield from pool.map(work, items[start : start + MAX_SUBMITTED])

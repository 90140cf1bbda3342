"""Threads for many small pieces of work, whose rest is dropped as soon as it is not wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

BEGUN = 1024  # pieces of work that wait or are done and not yet looked at
S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def threads(num_workers: int) -> Iterator[ThreadPoolExecutor]:
    """`num_workers` threads, 0: one a core. An error or Ctrl-C waits for what has begun, and drops what has not."""
    pool = ThreadPoolExecutor(num_workers or os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """`work` of each item, in their order, with `BEGUN` at most begun: a million of them take no memory."""
    for start in range(0, len(items), BEGUN):
        yield from pool.map(work, items[start : start + BEGUN])

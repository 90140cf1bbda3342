"""Threads for many small pieces of work, whose rest is dropped as soon as it is not wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def threads(num_workers: int) -> Iterator[ThreadPoolExecutor]:
    """`num_workers` threads, 0: one a core. An error or Ctrl-C waits for what has begun, and drops what has not."""
    pool = ThreadPoolExecutor(num_workers or os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""Work on many items in several processes: for Python code of many small steps, where threads wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

FEWEST = 256  # items that are worth the second that new processes take
BATCH = 32  # items sent at a time
S = TypeVar("S")
T = TypeVar("T")


def in_processes(work: Callable[[S], T], items: Sequence[S], num_workers: int = 0) -> Iterator[T]:
    """Yield `work(item)` in the order of the items, computed by `num_workers` processes (0: one per core).

    Fewer than `FEWEST` items are computed by this process. `work` and the items must be picklable, and importing `work`
    should be fast.
    """
    count = num_workers or os.cpu_count() or 1
    if count == 1 or len(items) < FEWEST:
        yield from map(work, items)
        return
    from joblib import Parallel, delayed  # late: most runs find their images decoded
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(count, batch_size=BATCH, return_as="generator")(delayed(work)(item) for item in items)
    finally:
        get_reusable_executor().shutdown()  # idle processes would keep their memory for minutes

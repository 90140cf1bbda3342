"""Pending jobs are cancelled when a block is interrupted."""

import time
from concurrent.futures import Future

import pytest

from vision_mtl.data.threads import threads


def test_an_interrupted_block_finishes_only_running_jobs() -> None:
    """Running jobs wait until the queue is dropped; without that, all jobs run after ten seconds."""
    begun: list[int] = []
    futures: list[Future[None]] = []

    def work(number: int) -> None:
        begun.append(number)
        end = time.monotonic() + 10
        while not (len(futures) == 40 and futures[-1].cancelled()) and time.monotonic() < end:
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt), threads(2) as pool:
        futures += [pool.submit(work, number) for number in range(40)]
        raise KeyboardInterrupt
    assert len(begun) <= 2


def test_a_normal_block_runs_all_jobs() -> None:
    with threads(3) as pool:
        found = list(pool.map(lambda number: number**2, range(20)))
    assert found == [number**2 for number in range(20)]

"""Work that is no longer wanted is not begun."""

import time
from concurrent.futures import Future

import pytest

from vision_mtl.data.threads import threads


def test_an_interrupted_block_ends_with_what_had_begun() -> None:
    """Work that has begun lasts until the queue is dropped: if it never is, ten seconds, and all of it is done."""
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


def test_a_block_that_ends_has_done_everything() -> None:
    with threads(3) as pool:
        found = list(pool.map(lambda number: number**2, range(20)))
    assert found == [number**2 for number in range(20)]

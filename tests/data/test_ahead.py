"""Prefetching gives the same steps as no threads, within its limits, and leaves no thread."""

from __future__ import annotations

import threading
import time

import pytest

from vision_mtl.data.ahead import BUFFER_BYTES, Ahead, plan


class Counted:
    """Makes steps and counts the largest number of finished steps that wait."""

    def __init__(self) -> None:
        self.lock, self.alive, self.most, self.made = threading.Lock(), 0, 0, []

    def __call__(self, step: int) -> str:
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
            self.made.append(step)
        return f"step {step}"

    def taken(self) -> None:
        with self.lock:
            self.alive -= 1


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("under-test")]


@pytest.mark.parametrize("num_workers", [1, 4])
def test_steps_in_any_order_are_correct(num_workers: int) -> None:
    ahead = Ahead(lambda step: step * step, depth=3, num_workers=num_workers, name="under-test")
    asked = [0, 1, 2, 3, 3, 3, 10, 11, 5, 6, 7, 0, 2, 4, 100]
    assert [ahead.at(step) for step in asked] == [step * step for step in asked]
    ahead.close()


@pytest.mark.parametrize("depth", [1, 5])
def test_fast_threads_wait_for_the_training(depth: int) -> None:
    counted = Counted()
    ahead = Ahead(counted, depth, num_workers=3, name="under-test")
    for step in range(12):
        assert ahead.at(step) == f"step {step}"
        counted.taken()
        time.sleep(0.01)  # enough time to make more steps
    ahead.close()
    assert counted.most <= depth + 1  # the waiting steps and the returned one
    assert sorted(counted.made) == list(range(12 + depth))


def test_an_exception_is_raised_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2 is broken")
        return step

    ahead = Ahead(make, depth=4, num_workers=2, name="under-test")
    assert [ahead.at(0), ahead.at(1)] == [0, 1]
    for _ in range(2):  # again at a second call
        with pytest.raises(ValueError, match="step 2 is broken"):
            ahead.at(2)
    assert ahead.at(3) == 3
    ahead.close()


def test_close_leaves_no_thread_and_at_restarts() -> None:
    started = threading.Event()

    def make(step: int) -> int:
        started.set()
        time.sleep(0.05)
        return step

    ahead = Ahead(make, depth=3, num_workers=2, name="under-test")
    assert not own_threads()  # none before the first step
    assert ahead.at(0) == 0 and own_threads()
    started.wait()
    ahead.close()
    ahead.close()
    assert not own_threads()
    assert ahead.at(7) == 7  # as in a second fit
    ahead.close()
    assert not own_threads()


def test_ready_returns_finished_steps_only() -> None:
    late, tried = threading.Event(), threading.Event()

    def make(step: int) -> int:
        if step == 2:
            raise ValueError("broken")
        if step == 3:
            tried.set()  # one thread in order: step 2 has been tried
            late.wait(10)
        return step

    ahead = Ahead(make, depth=3, num_workers=1, name="under-test")
    ahead.at(0)
    while ahead.ready(1) is None or not tried.is_set():
        time.sleep(0.001)
    assert (ahead.ready(1), ahead.ready(2), ahead.ready(3), ahead.ready(99)) == (1, None, None, None)
    assert ahead.at(1) == 1
    late.set()
    ahead.settle()
    assert ahead.ready(3) == 3
    ahead.close()


def test_the_buffer_is_limited_in_bytes_and_steps() -> None:
    assert plan(1 << 20, 4) == (5, 4)
    assert plan(BUFFER_BYTES // 3, 16) == (3, 3)
    assert plan(BUFFER_BYTES * 2, 16) == (1, 1)

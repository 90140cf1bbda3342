"""Signals are noted while a run trains, act elsewhere, and the second one leaves."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from vision_mtl.core.interruptions import INTERRUPTED, Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_stop_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    with Interruptions(say=said.append) as asked:
        os.kill(os.getpid(), number)
        assert asked.stop and not asked.save
    assert said == ["stopping after this step; once more to leave at once."]
    assert signal.getsignal(number) is before


def test_a_wish_to_save_is_taken_once() -> None:
    with Interruptions() as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.take_save() and not asked.take_save() and not asked.stop


def test_where_nothing_trains_it_stops_at_once_and_saving_is_no_end() -> None:
    with pytest.raises(KeyboardInterrupt), Interruptions(at_once=True) as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not asked.stop
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_the_second_leaves(at_once: bool) -> None:
    """Nothing after it runs, not even what is to run in any case; inside or around the training."""
    program = f"""
import os, signal
from vision_mtl.core.interruptions import Interruptions
try:
    with Interruptions(at_once=True):
        with Interruptions({at_once}):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                pass
        print("first", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("second")
finally:
    print("finally")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == INTERRUPTED and done.stdout == "first\n"


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with Interruptions():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]

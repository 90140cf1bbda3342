"""During training a signal sets a flag; elsewhere it stops the run; a second signal ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from vision_mtl.core.interruptions import INTERRUPTED, Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_sets_a_flag_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    messages: list[str] = []
    with Interruptions(say=messages.append) as signals:
        os.kill(os.getpid(), number)
        assert signals.stop and not signals.save
    assert messages == ["stopping after this step; press Ctrl-C again to stop at once."]
    assert signal.getsignal(number) is before


def test_a_save_signal_counts_once() -> None:
    with Interruptions() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.take_save() and not signals.take_save() and not signals.stop


def test_outside_training_a_stop_signal_raises_and_a_save_signal_does_not() -> None:
    with pytest.raises(KeyboardInterrupt), Interruptions(at_once=True) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not signals.stop
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_a_second_signal_ends_the_process(at_once: bool) -> None:
    """No code runs after it, not even `finally`, inside and outside training."""
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

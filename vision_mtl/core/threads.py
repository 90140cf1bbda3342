"""Let threads that wait for each other give up their core soon.

PyTorch's threads meet after each operation, and libgomp lets the early ones spin, for long where it takes the machine
to be its own. On a machine that others use too, they spin in the very core that the late one is waiting for: measured
on two shared cores, a resnet18's training fell from 440 to 20 images a second, and a convnextv2_atto's from 240 to 9. A
short spin costs nothing measurable when the machine is ours.

libgomp reads its settings when it is loaded, so `install()` must come before the first import of PyTorch. A setting of
the user's own is left alone.
"""

import os

SPIN = "10000"  # turns of a waiting loop, some tens of microseconds; about the time between two operations
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def install() -> None:
    """Shorten the spinning, unless the environment says how threads should wait."""
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPIN

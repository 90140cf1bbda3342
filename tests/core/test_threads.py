"""How waiting threads behave is set before PyTorch is loaded, and never against the user's word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vision_mtl.core.threads import SETTINGS, SPIN

CODE = "import vision_mtl, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPIN), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_the_spin_is_short_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).parents[2],
        env=clean | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected, "False"]

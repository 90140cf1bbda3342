"""`import vision_mtl` stays light: the API is imported when it is first used."""

import subprocess
import sys

import pytest

import vision_mtl


@pytest.mark.slow
def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vision_mtl; sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_entry_is_found_and_others_are_not() -> None:
    from vision_mtl.api.loaded_run import load_run

    assert vision_mtl.load_run is load_run
    with pytest.raises(AttributeError, match="has no attribute 'load_runs'"):
        vision_mtl.load_runs  # noqa: B018

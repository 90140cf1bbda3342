"""The environment of a run: command, commit, versions and machine. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# what a result is computed by; results and documents may change while several benchmarks run one after another
CODE = (":(top)vision_mtl", ":(top)benchmarks", ":(top)train.py", ":(top,exclude)benchmarks/results")
PACKAGES = ("torch", "torchvision", "timm", "kornia", "accelerate", "numpy", "scikit-learn", "opencv-python-headless")


def environment() -> dict[str, Any]:
    """Return what a result depends on in addition to its config, as `environment.json` stores it."""
    return {
        "command": [Path(sys.argv[0]).name, *(word.replace(str(Path.home()), "~") for word in sys.argv[1:])],
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "processor": processor(),
        "device": _device(),
    }


def processor() -> str:
    """Return the processor's name from /proc/cpuinfo (Linux) or from Python, which may not know it ("")."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _device() -> str:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source, with `+changes` if the code differs or is new; None outside a git checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", *CODE], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "") if head.returncode == 0 else None

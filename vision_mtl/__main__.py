"""`python -m vision_mtl` and the console script `vision_mtl`: the same command as `python train.py`."""

from __future__ import annotations

import sys

from vision_mtl.cli.command import main


def run() -> None:
    """Run the command with the words of this process, and exit with its code."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()

"""Former place of the command line: `vision_mtl.stages.command.main` is an alias of `vision_mtl.cli.command.main`."""

from __future__ import annotations

from importlib import import_module


def main(words: list[str]) -> int:
    """Run the command and return its exit code, as `vision_mtl.cli.command.main` does."""
    return import_module("vision_mtl.cli.command").main(words)  # by name: stages may not import cli

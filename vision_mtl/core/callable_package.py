"""Packages that share their name with a stage: `vm.data(...)` runs stage data, `vision_mtl.data.pool` is a module.

Python puts an imported package over an attribute of the same name, so the package itself must be callable.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that runs the stage of its name when it is called, with the options of `vision_mtl.run_stage`."""

    def __call__(self, **options: Any) -> Any:
        from vision_mtl.api.stage_functions import run_stage

        return run_stage(self.__name__.rpartition(".")[2], **options)


def make_callable(package: str) -> None:
    """Make the imported `package` callable."""
    sys.modules[package].__class__ = CallablePackage

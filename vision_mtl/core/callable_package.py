"""Callable packages: `vm.data(...)` runs stage data, although `vision_mtl.data` is also a package.

An imported package replaces an attribute of the same name, so the package itself must be callable.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that, when called, runs the stage of the same name with the options of `vision_mtl.run_stage`."""

    def __call__(self, **options: Any) -> Any:
        top, _, stage = self.__name__.partition(".")
        return sys.modules[top].run_stage(stage, **options)  # lazy there: core imports no other package


def make_callable(package: str) -> None:
    """Make the imported `package` callable."""
    sys.modules[package].__class__ = CallablePackage

"""Registry of components: one file defines and registers one component, and no list is edited.

A component's name is its file's name: the package is scanned for files that contain `.register("<file name>")`.
Listing the names imports nothing, so `--help` stays fast; getting a component imports only its file. A file outside of
the package may register a component too, if it is imported first (`--plugins FILE`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from vision_mtl.core.errors import UserError, unknown

Component = TypeVar("Component")


class Registry(Generic[Component]):
    """The components of `package` (a dotted name); `kind` is their name in error messages."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._found: dict[str, Component] = {}

    def folder(self) -> Path:
        """Return the package's folder without importing it. Raises `ImportError` if there is no such package."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"{self.package} is not a package")
        return Path(next(iter(spec.submodule_search_locations)))

    def file(self, name: str) -> Path:
        """Return the source file of component `name`. Raises `UserError` for an unknown name, with the nearest."""
        if name in self._packaged():
            return self.folder() / f"{name}.py"
        if name in self._found:
            return Path(inspect.getfile(self._found[name]))  # type: ignore[arg-type]  # a class or a function
        raise UserError(f"{unknown(self.kind, name, self.names())} If a file of yours defines it, give --plugins FILE.")

    def summary(self, name: str) -> str:
        """Return the first line of the docstring of the component's file. Raises `UserError` for an unknown name."""
        return self.file(name).read_text("utf-8").partition('"""')[2].partition("\n")[0].removesuffix('"""')

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order: those of the package's files and of plugins."""
        return sorted({*self._packaged(), *self._found})

    def register(self, name: str) -> Callable[[Any], Any]:
        """Return the decorator that registers a class or function; in the package, `name` must be the file's name.

        Raises `ValueError` if it is not, and `UserError` if a file outside of the package uses a registered name.
        """

        def add(component: Any) -> Any:
            module = getattr(component, "__module__", "")
            inside = module.startswith(f"{self.package}.")
            if inside and (module.rpartition(".")[2] != name or name in self._found):
                raise ValueError(
                    f"{self.kind} {name!r} must be registered once, in a file {name}.py; found in {module}"
                )
            if not inside and (name in self._packaged() or name in self._found):
                raise UserError(f"{self.kind} {name!r} is registered already; {module} must choose another name.")
            component.registered_name = name
            self._found[name] = component
            return component

        return add

    def get(self, name: str) -> Component:
        """Return the component `name`, importing its file if necessary. Raises `UserError` for an unknown name."""
        if name not in self._found:
            self.file(name)
            importlib.import_module(f"{self.package}.{name}")
        return self._found[name]

    def is_packaged(self) -> bool:
        """Return True if no component was registered by a file outside of the package."""
        return set(self._found) <= set(self._packaged())

    def _packaged(self) -> list[str]:
        files = sorted(self.folder().glob("*.py"))
        return [f.stem for f in files if re.search(rf'\.register\("{re.escape(f.stem)}"\)', f.read_text("utf-8"))]

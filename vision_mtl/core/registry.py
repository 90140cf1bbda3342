"""Names that are files: a component is registered by the file that defines it, and no list is edited.

A room (a package) is scanned for files that contain `.register("<the file's own name>")`. Listing the names imports
nothing, so `--help` stays fast; getting a component imports its file alone.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from vision_mtl.core.errors import unknown

Component = TypeVar("Component")


class Registry(Generic[Component]):
    """The components of one room. `kind` is what error messages call them, `package` the room's dotted name."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._found: dict[str, Component] = {}

    def folder(self) -> Path:
        """The room's folder, found without importing the room; raises `ImportError` if it is no package."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"{self.package} is not a package")
        return Path(next(iter(spec.submodule_search_locations)))

    def file(self, name: str) -> Path:
        """The source file of the component `name`; raises `UserError` naming the nearest if there is none."""
        if name not in self.names():
            raise unknown(self.kind, name, self.names())
        return self.folder() / f"{name}.py"

    def names(self) -> list[str]:
        """Every registered name in alphabetical order, from the files' text."""
        files = sorted(self.folder().glob("*.py"))
        return [f.stem for f in files if re.search(rf'\.register\("{re.escape(f.stem)}"\)', f.read_text("utf-8"))]

    def register(self, name: str) -> Callable[[Component], Component]:
        """Decorator for the component's class or function; `name` must be the file's."""

        def add(component: Component) -> Component:
            module = getattr(component, "__module__", "")
            if module.rpartition(".")[2] not in (name, "__main__") or name in self._found:
                raise ValueError(
                    f"{self.kind} {name!r} must be registered once, in a file {name}.py; found in {module}"
                )
            self._found[name] = component
            return component

        return add

    def get(self, name: str) -> Component:
        """The component `name`, its file imported now if it was not; raises `UserError` for an unknown name."""
        if name not in self._found:
            self.file(name)
            importlib.import_module(f"{self.package}.{name}")
        return self._found[name]

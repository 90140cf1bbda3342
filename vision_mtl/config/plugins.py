"""Components from a user's own files: importing a file registers what it defines.

A file is imported only when it is named on the command line or from Python, never because a run folder mentions it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from vision_mtl.core.errors import UserError

_loaded: list[Path] = []  # a file registers its components once a process


def load_plugins(files: Iterable[str | PathLike[str]]) -> None:
    """Import each Python file that was not imported before.

    Raises `UserError` for a file that is missing or fails on import, and for two files of the same name.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if path in _loaded:
            continue
        if not path.is_file() or path.suffix != ".py":
            raise UserError(f"--plugins takes existing Python files; found {str(file)!r}.")
        name = f"vision_mtl_plugin_{path.stem}"  # fixed, so that worker processes can unpickle its classes
        if name in sys.modules:
            raise UserError(f"two plugins are called {path.name!r}: rename one.")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # the suffix is .py
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise UserError(f"plugin {str(file)!r} cannot be imported: {type(error).__name__}: {error}") from error
        _loaded.append(path)


def loaded_plugins() -> list[str]:
    """Return the imported files, for the worker processes of a study."""
    return [str(path) for path in _loaded]

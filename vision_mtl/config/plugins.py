"""Components from a user's own files: importing a file registers what it defines.

A file is imported only when it is named on the command line or from Python, never because a run's folder mentions it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from vision_mtl.core.errors import UserError

_loaded: dict[Path, str] = {}  # file -> the name of its module; a file registers its components once a process


def load_plugins(files: Iterable[str | PathLike[str]]) -> None:
    """Import each Python file that was not imported before.

    Raises `UserError` for a file that is not there or does not import, and for two files of one name.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if path in _loaded:
            continue
        if not path.is_file() or path.suffix != ".py":
            raise UserError(f"--plugins takes Python files; found {str(file)!r}.")
        name = f"vision_mtl_plugin_{path.stem}"
        if name in sys.modules:
            raise UserError(f"two plugins are called {path.name!r}: rename one.")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # it is a Python file
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except UserError:
            del sys.modules[name]
            raise
        except Exception as error:
            del sys.modules[name]
            raise UserError(f"plugin {str(file)!r} cannot be imported: {type(error).__name__}: {error}") from error
        _loaded[path] = name


def loaded_plugins() -> list[str]:
    """Return the files that were imported, for the worker processes of a study."""
    return [str(path) for path in _loaded]

"""Finds image files below a path, recursively and sorted; ignores other files."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from vision_mtl.core.errors import UserError, nearest
from vision_mtl.data.decode import SUFFIXES


def find_images(text: str) -> tuple[Path, list[Path]]:
    """Return (base folder, sorted image files) of a folder, a file or a glob; identities are relative to the base.

    Ignores hidden files and folders, and files without an image suffix. Raises `UserError` for a missing path (with the
    nearest name) and for one without images.
    """
    path = Path(text).expanduser()
    if os.path.isdir(path):  # unlike Path.is_dir, without an error for a name that is too long
        base, files = (
            path,
            [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names],
        )
    elif os.path.isfile(path):
        base, files = path.parent, [path]
    elif glob.has_magic(text):
        base = next(p for p in path.parents if not glob.has_magic(str(p)))
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
        files = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
    else:
        raise missing_path(path)
    found = {f for f in files if f.suffix.lower() in SUFFIXES and f.is_file() and not _hidden(f.relative_to(base))}
    if not found:
        raise UserError(
            f"no image in {text!r}: none of its {len(files)} files ends in {', '.join(sorted(SUFFIXES)[:8])}, ..."
        )
    return base, sorted(found, key=lambda f: f.relative_to(base).as_posix())


def missing_path(path: Path) -> UserError:
    """Return the error for a missing path: it suggests the nearest name, or lists the existing parent folder."""
    parent = next((p for p in path.parents if os.path.isdir(p)), Path())
    entries = sorted(entry.name for entry in parent.iterdir())
    part = path.relative_to(parent).parts[0] if path.is_relative_to(parent) else path.name
    guess = nearest(part, entries)
    hint = (
        f" Did you mean {str(parent / guess)!r}?"
        if guess
        else f" {str(parent)!r} holds: {', '.join(entries[:8]) or 'nothing'}."
    )
    return UserError(f"there is no {str(path)!r}.{hint}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)

"""Finds image files below a path, recursively and sorted, and says which files it skipped."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from vision_mtl.core.errors import UserError, nearest
from vision_mtl.data.decode import SUFFIXES
from vision_mtl.data.walk import NO_SUFFIX, Walk, is_left_behind, walk


@dataclass(frozen=True)
class FoundImages:
    """The image files below `base`, absolute, as listed and sorted; `walk` tells what else lies there."""

    base: Path
    files: list[Path]
    walk: Walk = field(default_factory=Walk)

    @property
    def names(self) -> list[str]:
        """The files' paths relative to the base, with / between the parts: they identify the images."""
        return self.walk.files


def find_images(text: str) -> FoundImages:
    """Return the image files of a folder, a file or a glob.

    Skips files without an image suffix, hidden ones, and what systems leave behind (`data.walk`). Raises `UserError`
    for a missing path (with the nearest name) and for one without images.
    """
    path = Path(text).expanduser()
    if os.path.isdir(path):  # unlike Path.is_dir, without an error for a name that is too long
        base = listed_path(path)
        found = walk(base)
    elif os.path.isfile(path):
        base, found = listed_path(path.parent), Walk()
        if path.suffix.lower() in SUFFIXES and not is_left_behind(path.name):
            found.files.append(path.name)
        else:
            found.skipped["", path.suffix or NO_SUFFIX] += 1
    elif glob.has_magic(text):
        as_typed = next(p for p in path.parents if not glob.has_magic(str(p)))
        base = listed_path(as_typed)
        found = _matches(base, path.relative_to(as_typed).parts)
    else:
        raise missing_path(path)
    if not found.files:
        raise UserError(_no_image(text, found))
    return FoundImages(base, [base / file for file in found.files], found)


def _matches(base: Path, pattern: Sequence[str]) -> Walk:
    """Return a walk whose files match the parts of a glob, or lie below a folder that does."""

    def keeps(file: str) -> bool:
        return _match(file.split("/"), pattern)

    found = walk(base, enters=lambda folder: _may_hold(folder.split("/"), pattern), keeps=keeps)
    matching = {file for file in found.files if keeps(file)}
    for other, file in found.other_names():
        if file not in matching and keeps(other):
            matching.add(other)
    found.files[:] = sorted(matching)
    return found


def _match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return _match(parts, pattern[1:]) or (bool(parts) and _match(parts[1:], pattern))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])


def _may_hold(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return False if no file in the folder `parts` or below can match."""
    if not parts or not pattern or pattern[0] == "**":
        return True
    return fnmatch(parts[0], pattern[0]) and _may_hold(parts[1:], pattern[1:])


def _no_image(text: str, found: Walk) -> str:
    suffixes: dict[str, int] = {}
    for (_, suffix), count in found.skipped.items():
        suffixes[suffix] = suffixes.get(suffix, 0) + count
    held = [f"{count} {suffix}" for suffix, count in sorted(suffixes.items(), key=lambda entry: (-entry[1], entry[0]))]
    held += [f"{count} {name}" for name, count in found.left.items()]
    held += [f"{folder!r}, which cannot be opened ({reason})" for folder, reason in found.closed]
    return (
        f"no image in {text!r}: none of its {sum(suffixes.values())} files ends in "
        f"{', '.join(sorted(SUFFIXES)[:8])}, ..." + (f" It holds: {', '.join(held[:12])}." if held else "")
    )


def missing_path(path: Path) -> UserError:
    """Return the error for a missing path: it suggests the nearest name, or lists the existing parent folder."""
    if not path.is_absolute() and os.path.exists(absolute := Path("/") / path):
        return UserError(f"there is no {str(path)!r}. An absolute path keeps its slash: KIND/{absolute}.")
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


def other_case(folder: Path, name: str) -> str | None:
    """Return the existing path below `folder` that differs from `name` only in upper and lower case, or None."""
    found = folder
    for part in Path(name).parts:
        try:
            entries = sorted(os.listdir(found))
        except (OSError, ValueError):  # no folder, or a name that no file can have
            return None
        same = next((entry for entry in entries if entry.casefold() == part.casefold()), None)
        if same is None:
            return None
        found = found / same
    return found.relative_to(folder).as_posix()


def listed_path(path: Path) -> Path:
    """Return the absolute path as it was given, links unresolved; `..` is removed if that leads to the same file."""
    absolute = path.absolute()
    if ".." in absolute.parts:
        short = Path(os.path.normpath(absolute))
        try:
            return short if os.path.samefile(short, absolute) else absolute
        except OSError:
            return absolute
    return absolute


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file `name`, a relative or absolute path, as it is spelled on the disk; None if there is none.

    A name in another Unicode form (`ö` as one character or as `o` and two dots) is found if it is the only one.
    """
    path = folder / name
    if os.path.isfile(path):  # unlike Path.is_file, without an error for a name that is too long
        return path
    if name.isascii():
        return None
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if part != ".." and not os.path.exists(found / part):
            wanted = unicodedata.normalize("NFC", part)
            try:
                alike = [entry for entry in os.listdir(found) if unicodedata.normalize("NFC", entry) == wanted]
            except OSError:
                return None
            if len(alike) != 1:
                return None
            part = alike[0]
        found /= part
    return found if found.is_file() else None


def picture_key(path: Path) -> tuple[object, ...]:
    """Return a value that is equal for all paths of one file: links, hard links and other spellings.

    Size and time guard against file systems that reuse file numbers.
    """
    try:
        status = os.stat(path)
    except OSError:
        return (os.path.realpath(path),)
    number = status.st_ino or os.path.realpath(path)
    return (status.st_dev, number, status.st_size, status.st_mtime_ns)

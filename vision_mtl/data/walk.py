"""Walks a folder for image files: each real folder once, in a fixed order, past what operating systems leave behind.

Links to folders are followed. A folder that several paths reach is read once: under its own name if it lies below the
base, else under its alphabetically first link. A link to a folder above itself is not followed, so every walk ends.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from vision_mtl.data.decode import SUFFIXES

# folders of file servers, archives and systems, in lower case; names that begin with a dot are skipped as well
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@recycle", "@__thumb", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", ".thumbnails", ".ipynb_checkpoints", ".trash", ".trashes"}
)
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
APPLE = "._"  # prefix of the files in which macOS keeps attributes on other file systems
HIDDEN = "hidden (.*)"
NO_SUFFIX = "without suffix"
SPECIAL = "no regular file"  # a pipe, a socket, a device: opening one may wait forever

FolderId: TypeAlias = tuple[object, ...] | None


@dataclass
class Walk:
    """The result of a walk; all paths are relative to its base, with / between the parts."""

    files: list[str] = field(default_factory=list)  # image files, sorted
    folders: list[str] = field(default_factory=list)  # all folders but the base
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (folder, suffix) -> files that are not read
    left: Counter[str] = field(default_factory=Counter)  # what systems left behind: its name -> number of files
    again: list[tuple[str, str]] = field(default_factory=list)  # (link, the folder's name under which it is read)
    loops: list[str] = field(default_factory=list)  # links to a folder above themselves
    closed: list[tuple[str, str]] = field(default_factory=list)  # (folder, reason why it cannot be listed)

    def other_names(self) -> Iterator[tuple[str, str]]:
        """Yield (another path, its path in `files`) of each file in a folder that a link reaches again."""
        for link, folder in self.again:
            for number in range(bisect_left(self.files, f"{folder}/"), len(self.files)):
                file = self.files[number]
                if not file.startswith(f"{folder}/"):
                    break
                yield link + file[len(folder) :], file


def is_left_behind(name: str) -> bool:
    """Return True for the name of a hidden file or folder, or of one that a system leaves behind."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


def walk(base: Path, enters: Callable[[str], bool] | None = None, keeps: Callable[[str], bool] | None = None) -> Walk:
    """Return what lies below `base`.

    `enters` tells whether a folder is read, `keeps` whether a file that is not an image is counted; by default all.
    """
    found = Walk()
    known: dict[FolderId, str] = {}  # folder -> the name under which it is read
    links: list[str] = []  # a heap: they are followed in alphabetical order
    above: dict[Path, set[FolderId]] = {}  # folder -> all folders above its links
    _read_tree(base, "", found, known, links, enters, keeps)
    while links:
        link = heapq.heappop(links)
        target, parent = folder_id(base / link), (base / link).parent
        if parent not in above:
            above[parent] = _above(parent)
        if target is None or target in above[parent]:
            found.loops.append(link)
        elif target in known:
            found.again.append((link, known[target]))
        else:
            _read_tree(base, link, found, known, links, enters, keeps)
    found.files.sort()
    return found


def folder_id(path: Path | str) -> FolderId:
    """Return a value that is equal for all paths of one folder; None if a link of `path` leads in a circle."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else (os.path.realpath(path),)


def _above(parent: Path) -> set[FolderId]:
    """Return the folders above a link in `parent`, both as it is spelled and as it lies on the disk."""
    real = Path(os.path.realpath(parent))
    return {folder_id(path) for path in {parent, *parent.parents, real, *real.parents}}


def _read_tree(
    base: Path,
    start: str,
    found: Walk,
    known: dict[FolderId, str],
    links: list[str],
    enters: Callable[[str], bool] | None,
    keeps: Callable[[str], bool] | None,
) -> None:
    """Add the folder `start` and what is below it to `found`, without following links; they are pushed to `links`."""
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        identity = folder_id(base / folder)
        if identity in known:
            found.again.append((folder, known[identity]))
            continue
        try:
            with os.scandir(base / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            found.closed.append((folder or ".", error.strerror or str(error)))
            continue
        known[identity] = folder
        if folder:
            found.folders.append(folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_left_behind(entry.name):
                _count_left(entry, found.left)
            elif entry.is_dir(follow_symlinks=False):
                if enters is None or enters(path):
                    waiting.append(path)
            elif entry.is_symlink() and _leads_to_folder(entry):
                if enters is None or enters(path):
                    heapq.heappush(links, path)
            else:
                _add_file(entry, folder, path, found, keeps)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _add_file(
    entry: os.DirEntry[str], folder: str, path: str, found: Walk, keeps: Callable[[str], bool] | None
) -> None:
    """Add a file: an image by its suffix, with links that lead nowhere, so that decoding names them."""
    suffix = os.path.splitext(entry.name)[1]
    missing = entry.is_symlink() and not os.path.exists(entry.path)
    if suffix.lower() in SUFFIXES and (missing or entry.is_file()):
        found.files.append(path)
    elif keeps is None or keeps(path):
        found.skipped[folder, (suffix or NO_SUFFIX) if missing or entry.is_file() else SPECIAL] += 1


def _count_left(entry: os.DirEntry[str], left: Counter[str]) -> None:
    """Count the files of a folder that a system left behind, or one for any other hidden file or folder."""
    name = entry.name.lower()
    if name in SYSTEM_FOLDERS and entry.is_dir(follow_symlinks=False):
        left[entry.name] += sum(len(files) for _, _, files in os.walk(entry.path))
    elif name in SYSTEM_FILES or name in SYSTEM_FOLDERS or name == ".ds_store":
        left[entry.name] += 1
    else:
        left[f"{APPLE}*" if name.startswith(APPLE) else HIDDEN] += 1

"""Labels, splits and groups that a user names in a task: read from paths, columns, lists or folders."""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from vision_mtl.core.errors import UserError, nearest
from vision_mtl.data.source import Item, Split

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
IMAGE_COLUMNS = ("image", "file", "path", "filename", "image_path", "file_name", "filepath")  # of CSV files and lists


def apply_label_from(items: Sequence[Item], pattern: str, label: str = "label") -> list[Item]:
    """Give each item the first group that `pattern` finds in its path (/ between folders), as column `label`.

    Raises `UserError` for a pattern without a group, and for files that it does not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"label_from {pattern!r} is not a regular expression: {error}.") from error
    if compiled.groups < 1:
        raise UserError(f"label_from {pattern!r} has no group: put what is the label in parentheses.")
    found = [(item, compiled.search(_path_of(item))) for item in items]
    missed = [_path_of(item) for item, match in found if match is None or match.group(1) is None]
    if missed:
        raise UserError(
            f"label_from {pattern!r} matches {len(items) - len(missed)} of {len(items)} files; "
            f"not, for example, {missed[0]!r}."
        )
    return [replace(item, labels={**item.labels, label: match.group(1)}) for item, match in found]


def apply_group(items: Sequence[Item], column: str) -> list[Item]:
    """Make a column's values the groups: equal ones stay on one side. An item without a value is its own group."""
    require_column(items, column, "group")
    return [replace(item, group=item.labels.get(column, item.group)) for item in items]


def apply_split(items: Sequence[Item], split: str, base: Path) -> list[Item]:
    """Set the items' sides from what the user wrote: a column, list files, or a comma list of folders.

    A list file names images, one a line, by path, name or name without suffix; further words on the line are passed
    over, unless the last is a side. A file without such words gives all its images the side in its own name
    (`test.txt`, `trainval.csv`). Items that no list names are left to the other sides: train if a list gave test.
    Raises `UserError` for what is neither, and for names that the source does not have.
    """
    parts = [part.strip() for part in split.split(",") if part.strip()]
    files = [_find_file(part, base) for part in parts]
    if any(files):
        missing = [part for part, file in zip(parts, files, strict=True) if file is None]
        if missing:
            raise UserError(f"split {split!r}: there is no file {missing[0]!r} (looked here and in {str(base)!r}).")
        return _from_lists(items, [file for file in files if file is not None])
    if len(parts) > 1:
        return _from_folders(items, parts)
    require_column(items, split, "split")
    return [
        replace(item, split=_side(item.labels[split], split) if split in item.labels else item.split) for item in items
    ]


def require_column(items: Sequence[Item], column: str, option: str) -> None:
    """Raise `UserError` naming the nearest if no item has `column`."""
    columns = sorted({name for item in items for name in item.labels})
    if column not in columns:
        guess = nearest(column, columns)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise UserError(
            f"{option} {column!r} is no column of this source.{hint} Columns: {', '.join(columns) or 'none'}."
        )


def _path_of(item: Item) -> str:
    return item.path.as_posix() if item.path is not None else item.identity


def _side(word: str, where: str) -> Split:
    if word.strip().lower() not in SPLIT_WORDS:
        raise UserError(f"split {where!r} must say train, val or test; found {word!r}.")
    return SPLIT_WORDS[word.strip().lower()]


def _find_file(text: str, base: Path) -> Path | None:
    return next((p for p in (Path(text).expanduser(), base / text) if p.is_file()), None)


def _from_lists(items: Sequence[Item], files: Sequence[Path]) -> list[Item]:
    by_name: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        path = PurePath(item.identity)
        for key in {item.identity, path.name, path.stem, path.with_suffix("").as_posix()}:
            by_name.setdefault(key, []).append(number)
    sides: dict[int, Split] = {}
    for file in files:
        for line, name, side in _read_list(file, by_name.keys()):
            known = by_name.get(name, [])
            where = f"split file {str(file)!r}, line {line}"
            if not known:
                raise UserError(f"{where}: {name!r} is no image of this source.")
            if len(known) > 1:
                raise UserError(f"{where}: {name!r} names {len(known)} images; give its folder.")
            if sides.get(known[0], side) != side:
                raise UserError(f"{where}: {name!r} is in {sides[known[0]]} and in {side}.")
            sides[known[0]] = side
    rest = None if "train" in sides.values() else "train"
    return [replace(item, split=sides.get(number, rest)) for number, item in enumerate(items)]


def _read_list(file: Path, names: Container[str]) -> list[tuple[int, str, Split]]:
    """(line number, image's name, side) of each image listed; comments, blank lines and a header are passed over."""
    lines = file.read_text("utf-8-sig").splitlines()
    own = SPLIT_WORDS.get(file.stem.lower().rpartition("_")[2])
    found = []
    for number, line in enumerate(lines, start=1):
        words = _words(line, names)
        if not words or words[0].startswith("#") or (number == 1 and words[0].lower() in IMAGE_COLUMNS):
            continue
        side = SPLIT_WORDS.get(words[-1].lower()) if len(words) > 1 else None
        if side is None and own is None:
            raise UserError(
                f"split file {str(file)!r}, line {number}: {line.strip()!r} says neither train, val nor test, "
                "nor does the file's name."
            )
        found.append((number, words[0], side or own))
    if not found:
        raise UserError(f"split file {str(file)!r} names no image.")
    return found


def _words(line: str, names: Container[str]) -> list[str]:
    """The parts of a line, at commas or else at spaces; a line that is an image's whole name is one part."""
    line = line.strip().replace("\\", "/")
    if line in names:
        return [line]
    parts = next(csv.reader([line]), []) if "," in line else line.split()
    return [part.strip() for part in parts if part.strip()]


def _from_folders(items: Sequence[Item], folders: Sequence[str]) -> list[Item]:
    """Three (train, val, test) or two (train, test) folder names: an item's side is the one its path passes through."""
    if len(folders) not in (2, 3):
        raise UserError(f"split must name two (train,test) or three (train,val,test) folders; found {folders!r}.")
    sides: list[Split] = ["train", "val", "test"] if len(folders) == 3 else ["train", "test"]
    names = dict(zip(folders, sides, strict=True))
    found = []
    for item in items:
        passed = [part for part in PurePath(item.identity).parts[:-1] if part in names]
        found.append(replace(item, split=names[passed[0]] if passed else item.split))
    for folder, side in names.items():
        if not any(item.split == side for item in found):
            raise UserError(f"split {','.join(folders)!r}: no image lies in a folder named {folder!r}.")
    return found

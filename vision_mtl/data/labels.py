"""Applies a task's `label_from`, `split` and `group`: from paths, columns, list files or folders."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from vision_mtl.core.errors import UserError, nearest
from vision_mtl.core.text import valid_text
from vision_mtl.data.source import Item, Split
from vision_mtl.data.tables import read_lines

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
IMAGE_COLUMNS = ("image", "file", "path", "filename", "image_path", "file_name", "filepath")  # in CSV and list files


def apply_label_from(items: Sequence[Item], pattern: str, label: str = "label") -> list[Item]:
    """Return the items with a column `label`: the first group of `pattern` in the item's path (with / separators).

    Raises `UserError` for a pattern without a group, and for files that it does not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"label_from {pattern!r} is not a regular expression: {error}.") from error
    if compiled.groups < 1:
        raise UserError(f"label_from {pattern!r} has no group: put the part that is the label in parentheses.")
    found, missed = [], []
    for item in items:
        if item.beside is not None:  # no label by definition
            found.append(item)
            continue
        match = compiled.search(_path_of(item))
        if match is None or match.group(1) is None:
            missed.append(_path_of(item))
        else:
            found.append(replace(item, labels={**item.labels, label: match.group(1)}))
    if missed:
        raise UserError(
            f"label_from {pattern!r} matches {len(items) - len(missed)} of {len(items)} files; "
            f"it does not match, for example, {missed[0]!r}."
        )
    return found


def apply_group(items: Sequence[Item], column: str) -> list[Item]:
    """Return the items with a column's values as groups; an item without a value forms its own group."""
    require_column(items, column, "group")
    return [replace(item, group=item.labels.get(column, item.group)) for item in items]


def apply_split(items: Sequence[Item], split: str, base: Path) -> list[Item]:
    """Return the items with the splits of option `split`: a column, list files, or folders separated by commas.

    A list file names one image per line by path, name or name without suffix. If the last word of a line is a split, it
    is the image's; other words are ignored, and so is a comment after ` #`. Without it, the file's own name gives the
    split (`test.txt`, `trainval.csv`). Items that are in no list are train, unless a list gives train; then their split
    is drawn. Raises `UserError` for a split that is none of these, and for names that are not in the source.
    """
    parts = [part.strip() for part in split.split(",") if part.strip()]
    files = [option_file(part, base) for part in parts]
    if any(files):
        missing = [part for part, file in zip(parts, files, strict=True) if file is None]
        if missing:
            raise UserError(
                f"split {split!r}: there is no file {missing[0]!r} in the working directory or in {str(base)!r}."
            )
        return _from_lists(items, [file for file in files if file is not None])
    if len(parts) > 1:
        return _from_folders(items, parts)
    require_column(items, split, "split")
    return [
        replace(item, split=_parse_split(item.labels[split], split) if split in item.labels else item.split)
        for item in items
    ]


def require_column(items: Sequence[Item], column: str, option: str) -> None:
    """Raise `UserError`, with the nearest name, if no item has `column`."""
    columns = sorted({name for item in items for name in item.labels})
    if column not in columns:
        guess = nearest(column, columns)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise UserError(
            f"{option} {column!r} is not a column of this source.{hint} Columns: {', '.join(columns) or 'none'}."
        )


def _path_of(item: Item) -> str:
    return valid_text(item.path.as_posix()) if item.path is not None else item.identity


def _parse_split(word: str, column: str) -> Split:
    if word.strip().lower() not in SPLIT_WORDS:
        raise UserError(f"split {column!r} must hold train, val or test; found {word!r}.")
    return SPLIT_WORDS[word.strip().lower()]


def option_file(text: str, base: Path) -> Path | None:
    """Return the file of an option: relative to the working directory, or else to `base`; None without one."""
    return next((p for p in (Path(text).expanduser(), base / text) if os.path.isfile(p)), None)


def _from_lists(items: Sequence[Item], files: Sequence[Path]) -> list[Item]:
    by_name: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        path = PurePath(item.identity)
        for key in {item.identity, path.as_posix(), path.name, path.stem, path.with_suffix("").as_posix()}:
            by_name.setdefault(key, []).append(number)
    splits: dict[int, Split] = {}
    for file in files:
        for line, name, split in _read_list(file, by_name.keys()):
            known = by_name.get(name, [])
            where = f"split file {str(file)!r}, line {line}"
            if not known:
                raise UserError(f"{where}: {name!r} is not an image of this source.")
            if len({items[row].key or row for row in known}) > 1:
                raise UserError(f"{where}: {name!r} names {len(known)} images; give its folder.")
            if splits.get(known[0], split) != split:
                raise UserError(f"{where}: {name!r} is in {splits[known[0]]} and in {split}.")
            splits |= dict.fromkeys(known, split)
    rest: Split | None = None if "train" in splits.values() else "train"
    return [replace(item, split=splits.get(number, rest)) for number, item in enumerate(items)]


def _read_list(file: Path, names: Container[str]) -> list[tuple[int, str, Split]]:
    """Return (line number, image name, split) for each listed image; skips comments, blank lines and a header."""
    own = SPLIT_WORDS.get(file.stem.lower().rpartition("_")[2])
    found = []
    for number, line in enumerate(read_lines(file), start=1):
        where = f"split file {str(file)!r}, line {number}"
        name, words = _words(line, names, where)
        if not name or (number == 1 and name.lower() in IMAGE_COLUMNS):
            continue
        split = (SPLIT_WORDS.get(words[-1].lower()) if words else None) or own
        if split is None:
            raise UserError(f"{where}: neither {line.strip()!r} nor the file's name gives train, val or test.")
        found.append((number, name, split))
    if not found:
        raise UserError(f"split file {str(file)!r} names no image.")
    return found


def _words(line: str, names: Container[str], where: str) -> tuple[str, list[str]]:
    """Return (name, other words) of a line without its comment; the name is "" if there is none.

    A name may contain spaces, commas and `#`: the part of the line before a space or a comma that is the name of an
    image is the name. Raises `UserError` if two parts are names.
    """
    line = line.strip()
    for text in dict.fromkeys([line, line.replace("\\", "/")]):
        if text in names:
            return text, []
        starts = [text[: match.start()] for match in re.finditer(r"[\s,]", text) if text[: match.start()] in names]
        if len(starts) > 1:
            raise UserError(
                f"{where}: {starts[0]!r} and {starts[-1]!r} are both images of this source. Write the name in "
                f'quotation marks, and a comma after it: "{starts[-1]}",train.'
            )
        if starts:
            return starts[0], re.split(r"[\s,]+", _without_comment(text[len(starts[0]) :]).strip(" \t,"))
    text = line.replace("\\", "/")
    if quoted := re.match(r'"((?:[^"]|"")*)"', text):
        rest = _without_comment(text[quoted.end() :])
        return quoted[1].replace('""', '"').strip(), rest.replace(",", " ").split()
    text = _without_comment(text)
    parts = text.split("," if "," in text else None)
    found = [part.strip() for part in parts if part.strip()]
    return (found[0], found[1:]) if found else ("", [])


def _without_comment(text: str) -> str:
    return re.split(r"(?:^|[\s,])#", text, maxsplit=1)[0]


def _from_folders(items: Sequence[Item], folders: Sequence[str]) -> list[Item]:
    """Return the items with the split of a folder on their path; `folders` are (train, val, test) or (train, test)."""
    if len(folders) not in (2, 3):
        raise UserError(f"split must name two (train,test) or three (train,val,test) folders; found {folders!r}.")
    splits: list[Split] = ["train", "val", "test"] if len(folders) == 3 else ["train", "test"]
    names = dict(zip(folders, splits, strict=True))
    found = []
    for item in items:
        on_path = [part for part in PurePath(item.identity).parts[:-1] if part in names]
        found.append(replace(item, split=names[on_path[0]] if on_path else item.split))
    for folder, split in names.items():
        if not any(item.split == split for item in found):
            raise UserError(f"split {','.join(folders)!r}: no image is in a folder named {folder!r}.")
    return found

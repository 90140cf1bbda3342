"""Files of splits: every run writes the split of each image of each source, and later runs may keep them.

A file is CSV in UTF-8 with the columns source, image, split. An image is named by its identity in the source. Bytes of
a file name that are not UTF-8 stay as they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vision_mtl.core.csv_escape import escape_cell
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.data.findings import Findings
from vision_mtl.data.source import SPLITS, Item, Split, movable_name

SPLIT_FILE = "splits.csv"  # in every run's folder
HEADER = ["source", "image", "split"]
DELIMITERS = (",", ";", "\t")  # spreadsheets change the comma
SHOWN = 5  # names given in a message
Listed = dict[str, dict[str, Split]]  # source -> image -> split


def run_splits(folder: Path) -> Path | None:
    """Return the file of splits of the run in `folder`; None if it has none yet, or was made before they existed."""
    return folder / SPLIT_FILE if (folder / SPLIT_FILE).is_file() else None


def write_splits(path: Path, assigned: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> None:
    """Write the splits (n,) of each source's n images to `path`; raises `UserError` if the disk is full.

    What a file at `path` lists besides stays listed: images that are missing now may come back.
    """
    before = read_splits(path) if path.is_file() else {}
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # Python 3.11 does not quote for a \r
    plain.writerow(HEADER)
    for source, (identities, splits) in assigned.items():
        for identity, split in zip(identities, splits.tolist(), strict=True):
            writer = quoted if "\r" in identity or "\r" in source else plain
            writer.writerow((source, _escaped(identity), SPLITS[split]))
        known = set(identities)
        for image, found in (splits_of(before, source) or {}).items():
            if image not in known:
                (quoted if "\r" in image else plain).writerow((source, _escaped(image), found))
    atomic_write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def split_hash(assigned: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> str:
    """Return 16 hexadecimal digits that change if any image is added, removed or moved to another split.

    Neither the order of the sources and images nor the folder that they are in matters.
    """
    rows = [
        f"{movable_name(source)}\0{identity}\0{SPLITS[split]}"
        for source, (identities, splits) in assigned.items()
        for identity, split in zip(identities, splits.tolist(), strict=True)
    ]
    text = "\n".join(sorted(rows)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _escaped(name: str) -> str:
    """Return the cell of a name: an apostrophe comes before what a spreadsheet would run, and before an apostrophe."""
    return f"'{name}" if name.startswith("'") else escape_cell(name)


def is_split_file(path: Path) -> bool:
    """Return True if `path` is a file that begins with the header of a file of splits."""
    try:
        with path.open("rb") as file:
            start = file.readline(200).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return _delimiter(start) is not None


def read_splits(path: Path) -> Listed:
    """Return the splits in a file; raises `UserError` with the line for what is no split, and for two of one image."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read the split file {str(path)!r}: {error.strerror}.") from error
    delimiter = _delimiter(text[:200])
    if delimiter is None:
        raise UserError(f"the split file {str(path)!r} must begin with the line {','.join(HEADER)}.")
    found: Listed = {}
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for number, row in enumerate(rows):
            if number and row:
                _read_row(row, f"split file {str(path)!r}, line {rows.line_num}", found)
    except csv.Error as error:
        raise UserError(f"split file {str(path)!r}, line {rows.line_num}: {error}.") from error
    if not found:
        raise UserError(f"the split file {str(path)!r} names no image.")
    return found


def _delimiter(start: str) -> str | None:
    """Return the delimiter of the header that a text begins with, or None if it begins otherwise."""
    first = start.split("\n", 1)[0].strip().replace('"', "").lower()
    return next((d for d in DELIMITERS if first.split(d) == HEADER), None)


def _read_row(row: list[str], where: str, found: Listed) -> None:
    if len(row) != len(HEADER) or row[2].strip().lower() not in SPLITS:
        raise UserError(f"{where}: wanted a source, an image, and {', '.join(SPLITS)}; found {', '.join(row)!r}.")
    source, image, split = row[0], row[1].removeprefix("'"), SPLITS[SPLITS.index(row[2].strip().lower())]
    before = found.setdefault(source, {}).setdefault(image, split)
    if before != split:
        raise UserError(f"{where}: {image!r} is in {before} and in {split}.")


def splits_of(listed: Listed, source: str) -> dict[str, Split] | None:
    """Return the splits of one source: of this name, else of one with the same kind and last name; None without one."""
    if source in listed:
        return listed[source]
    alike = [name for name in listed if movable_name(name) == movable_name(source)]
    return listed[alike[0]] if len(alike) == 1 else None


@dataclass(frozen=True)
class KeptSplits:
    """A file of splits for a run: `option` names it in messages.

    `only`: it is meant for one source, so it must list images of it, under any source's name if it lists one source.
    """

    file: Path
    option: str
    only: bool = False

    def apply(self, items: Sequence[Item], source: str, findings: Findings) -> list[Item]:
        """Return the items with the splits that the file lists; adds to `findings` what is missing or new.

        Raises `UserError` for a file that cannot be read, lists another source, or contradicts another file.
        """
        listed = read_splits(self.file)
        own = splits_of(listed, source)
        if own is None and self.only and len(listed) == 1:
            own = next(iter(listed.values()))
        where = f"{self.option} {str(self.file)!r}"
        if own is None:
            text = f"{where} lists no image of {source} (its sources: {', '.join(listed)})"
            if self.only:
                raise UserError(f"{text}.")
            findings.warn(f"{text}: its splits are drawn.")
            return list(items)
        numbers, missing = _match(items, own)
        self._report_missing(own, missing, where, source, findings)
        if len(numbers) < len(items):
            count = len(items) - len(numbers)
            findings.note(f"{count} images of {source} are not in {where}: their splits are drawn.", images=count)
        kept = list(items)
        for number, split in numbers.items():
            before = items[number].kept
            if before not in (None, split):
                raise UserError(
                    f"{items[number].identity!r} of {source} is in {split} by {where}, elsewhere in {before}."
                )
            kept[number] = replace(items[number], kept=split)
        return kept

    @staticmethod
    def _report_missing(
        own: Mapping[str, Split], missing: list[str], where: str, source: str, findings: Findings
    ) -> None:
        if not missing:
            return
        tests = [name for name in missing if own[name] == "test"]
        num_tests = sum(split == "test" for split in own.values())
        shown = ", ".join(repr(name) for name in (tests or missing)[:SHOWN])
        if len(missing) == len(own) or (tests and len(tests) == num_tests):
            what = f"test images ({num_tests})" if len(missing) < len(own) else f"images ({len(own)})"
            findings.error(
                f"none of the {what} that {where} lists for {source} is there, for example {shown}.",
                "Give the file of a run on these images, or leave the option out.",
                len(missing),
            )
        else:
            findings.warn(
                f"{len(missing)} of {len(own)} images that {where} lists for {source} are not there, {len(tests)} of "
                f"them test images: {shown}.",
                images=len(missing),
            )


def _match(items: Sequence[Item], own: Mapping[str, Split]) -> tuple[dict[int, Split], list[str]]:
    """Return item number -> split, and the listed names that no item has, exactly or in another Unicode form."""
    by_name = {item.identity: number for number, item in enumerate(items)}
    found, rest = {}, []
    for name, split in own.items():
        number = by_name.get(name, by_name.get(f"'{name}"))  # not escaped in a file written by hand
        if number is None:
            rest.append(name)
        else:
            found[number] = split
    forms: dict[str, list[int]] = {}
    if rest:
        for number, item in enumerate(items):
            if number not in found:
                forms.setdefault(normalize("NFC", item.identity), []).append(number)
    missing = []
    for name in rest:
        numbers = forms.get(normalize("NFC", name), [])
        if len(numbers) == 1:
            found[numbers[0]] = own[name]
        else:
            missing.append(name)
    return found, missing

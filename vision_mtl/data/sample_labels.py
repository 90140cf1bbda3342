"""The labels of WebDataset samples: a class (`.cls`), a text (`.txt`), columns of a mapping (`.json`), a group."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from vision_mtl.data.findings import Finding
from vision_mtl.data.shard_index import Place

LABEL_BYTES = 1 << 20  # largest label file
LABEL_SUFFIXES, GROUP = (".cls", ".txt", ".json"), ".group"
SHOWN = 5  # label files named in an error


class LabelReader:
    """Reads the labels of samples; what cannot be read is collected, so that one error names all of it.

    `unusable` maps the columns that no label can be read from to what they hold.
    """

    def __init__(self, read: Callable[[Place], bytes]) -> None:
        self._read = read
        self.wrong: list[str] = []
        self.unusable: dict[str, str] = {}

    def read(self, members: Mapping[str, Place], where: str) -> tuple[dict[str, str], str | None]:
        """Return (column -> label, group) of the sample `where`; blanks are no label."""
        found: dict[str, str] = {}
        for suffix in (suffix for suffix in members if suffix in LABEL_SUFFIXES):
            try:
                text = self._text(members[suffix], f"{where}{suffix}")
                labels = self._columns(text, f"{where}{suffix}") if suffix == ".json" else {suffix[1:]: text}
                self._merge(found, {name: value for name, value in labels.items() if value.strip()}, where, suffix)
            except ValueError as error:
                self.wrong.append(str(error))
        try:
            group = self._text(members[GROUP], where + GROUP) if GROUP in members else None
        except ValueError as error:
            group = None
            self.wrong.append(str(error))
        return found, group or None

    def findings(self, source: str) -> list[Finding]:
        """Return the error that names the label files that cannot be read, and a note on unusable columns."""
        found = []
        if self.wrong:
            shown = "\n".join(f"  {wrong}" for wrong in self.wrong[:SHOWN])
            more = f"\n  ... and {len(self.wrong) - SHOWN} more" if len(self.wrong) > SHOWN else ""
            text = f"{source}: label files that cannot be used: {len(self.wrong)}.\n{shown}{more}\n"
            found.append(Finding("error", text, "Repair or remove them.", len(self.wrong)))
        if self.unusable:
            columns = ", ".join(f"{name} ({what})" for name, what in list(self.unusable.items())[:8])
            found.append(Finding("note", f"{source}: these columns are no labels: {columns}."))
        return found

    def _merge(self, found: dict[str, str], labels: dict[str, str], where: str, suffix: str) -> None:
        for name, value in labels.items():
            if found.setdefault(name, value) != value:
                raise ValueError(
                    f"{where}{suffix} has {name} {value!r}, but another file of the sample {found[name]!r}"
                )

    def _text(self, place: Place, where: str) -> str:
        if place[2] > LABEL_BYTES:
            raise ValueError(f"{where} has {place[2]:,} bytes; a label has {LABEL_BYTES:,} at most")
        try:
            return self._read(place).decode("utf-8-sig").strip()  # a byte-order mark is no part of the label
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text: {error}") from error
        except OSError as error:
            raise ValueError(f"{where} cannot be read: {error.strerror}") from error

    def _columns(self, text: str, where: str) -> dict[str, str]:
        try:
            values = json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            self.unusable["json"] = "JSON that is no mapping"
            return {}
        found = {}
        for name, value in values.items():
            if isinstance(value, str | int | float):  # bool is an int
                found[name] = "" if value != value else str(value)  # NaN is how pandas writes a blank
            elif value is not None:
                self.unusable[name] = "a list" if isinstance(value, list) else "a mapping"
        return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found

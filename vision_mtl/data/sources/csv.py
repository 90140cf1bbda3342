"""`csv/FILE.csv`: an image column and any number of label columns, which may have blank cells.

Option `image` names the image column; without it, it is the one named image, file, path, filename, image_path or
file_name, else the first. Paths are relative to the CSV file's folder. Rows with the same file are one instance; their
labels are merged.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.decode import decode_bytes, file_bytes
from vision_mtl.data.files import missing_path
from vision_mtl.data.labels import IMAGE_COLUMNS
from vision_mtl.data.source import SOURCES, Item


@SOURCES.register("csv")
class Csv:
    """A CSV file with one row per image; all columns but the image column are label columns."""

    version = "1"
    has_columns = True

    def __init__(self, rest: str, root: Path, image: str | None = None) -> None:
        self.file, self.image = Path(rest).expanduser(), image

    def items(self) -> list[Item]:
        header, rows = self._rows()
        column = self._image_column(header)
        found: dict[str, dict[str, str]] = {}
        lines: dict[str, int] = {}
        for line, row in rows:
            if len(row) != len(header):
                raise UserError(f"{self.file}, line {line}: the header has {len(header)} columns, the row {len(row)}.")
            identity = row[column].strip().replace("\\", "/")
            labels = {
                name: v.strip()
                for i, (name, v) in enumerate(zip(header, row, strict=True))
                if i != column and v.strip()
            }
            before = found.setdefault(identity, {})
            for name in labels.keys() & before.keys():
                if labels[name] != before[name]:
                    raise UserError(
                        f"{self.file}, line {line}: {identity!r} has {name} {labels[name]!r}, "
                        f"but {before[name]!r} in line {lines[identity]}."
                    )
            before.update(labels)
            lines.setdefault(identity, line)
        if not found:
            raise UserError(f"{self.file} names no image: it has only a header.")
        return [self._item(identity, labels, lines[identity]) for identity, labels in found.items()]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)

    def _image_column(self, header: list[str]) -> int:
        if self.image is None:
            return next((i for i, name in enumerate(header) if name.lower() in IMAGE_COLUMNS), 0)
        if self.image not in header:
            raise unknown(f"image column of {self.file}", self.image, header)
        return header.index(self.image)

    def _item(self, identity: str, labels: dict[str, str], line: int) -> Item:
        path = self.file.parent / identity
        if not path.is_file():
            raise UserError(
                f"{self.file}, line {line}: there is no image file {identity!r} (paths are relative to the CSV)."
            )
        return Item(identity=identity, path=path.resolve(), labels=labels)

    def _rows(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        if not self.file.is_file():
            raise missing_path(self.file)
        try:
            text = self.file.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
            ) from error
        reader = csv.reader(text.splitlines(), delimiter=_delimiter(text))
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        if not rows:
            raise UserError(f"{self.file} is empty: its first line must name the columns.")
        header = [name.strip() for name in rows[0][1]]
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise UserError(f"{self.file}: column {doubled[0]!r} is named twice.")
        return header, rows[1:]


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)

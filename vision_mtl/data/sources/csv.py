"""`csv/FILE.csv`: an image column and any number of label columns, which may have blank cells.

Option `image` names the image column; without it, it is the one named image, file, path, filename, image_path or
file_name, else the first. Paths are relative to the CSV file's folder. Rows with the same file are one instance; their
labels are merged. A column without a name, as pandas writes its index, is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.text import native_name
from vision_mtl.data.decode import SUFFIXES, decode_bytes, file_bytes
from vision_mtl.data.files import find_file, listed_path, missing_path, other_case
from vision_mtl.data.labels import IMAGE_COLUMNS
from vision_mtl.data.source import SOURCES, Item
from vision_mtl.data.tables import read_table


@SOURCES.register("csv")
class Csv:
    """A CSV file with one row per image; all columns but the image column are label columns."""

    version = "1"
    has_cells = True  # in which a word such as nan may mean no label
    has_columns = True

    def __init__(self, rest: str, root: Path, image: str | None = None) -> None:
        self.file, self.image = Path(rest).expanduser(), image

    def items(self) -> list[Item]:
        if not self.file.is_file():
            raise missing_path(self.file)
        table = read_table(self.file)
        header, column = table.header, self._image_column(table.header)
        found: dict[str, dict[str, str]] = {}
        lines: dict[str, int] = {}
        paths: dict[str, Path | None] = {}
        for line, row in table.rows:
            identity, path = self._find(row[column])
            labels = {
                name: v.strip()
                for i, (name, v) in enumerate(zip(header, row, strict=True))
                if i != column and name and v.strip()
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
            paths[identity] = path
        if not found:
            raise UserError(f"{self.file} names no image: it has only a header.")
        self._require_files(paths, lines)
        files = {identity: listed_path(path) for identity, path in paths.items() if path is not None}
        return [Item(identity=identity, path=path, labels=found[identity]) for identity, path in files.items()]

    def encoded(self, item: Item) -> bytes:
        return file_bytes(item.file)

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.file)

    def _image_column(self, header: list[str]) -> int:
        """Return the number of the image column. Raises `UserError` if the first row is no header but names images."""
        if self.image is not None and self.image in header:
            return header.index(self.image)
        column = next((i for i, name in enumerate(header) if name.lower() in IMAGE_COLUMNS), None)
        images = [cell for cell in header if Path(cell).suffix.lower() in SUFFIXES or self._find(cell)[1] is not None]
        if column is None and images:
            raise UserError(
                f"{self.file} has no header: its first row names the image {images[0]!r}. Add a first row that names "
                f"the columns, for example image,label."
            )
        if self.image is not None:
            raise unknown(f"image column of {self.file}", self.image, header)
        return column or 0

    def _find(self, cell: str) -> tuple[str, Path | None]:
        """Return the identity of the image that a cell names, and its file, or None if there is no such file.

        The cell is a name as it is, without spaces around it, with backslashes for slashes, in another Unicode form, or
        with escapes for bytes that are not UTF-8.
        """
        text = cell.strip()
        name = text.replace("\\", "/")
        escaped = [] if text.isascii() and "\\" not in text else [native_name(text)]
        for form in dict.fromkeys([cell, text, name, *escaped]) if text else ():
            if (path := find_file(self.file.parent, form)) is not None:
                return form, path
        return name, None

    def _require_files(self, paths: Mapping[str, Path | None], lines: Mapping[str, int]) -> None:
        """Raise `UserError` if rows name no file."""
        missing = [identity for identity, path in paths.items() if path is None]
        if missing:
            first = missing[0]
            exists = other_case(self.file.parent, first)
            hint = f", but {exists!r}: upper and lower case differ" if exists else ""
            others = f"; {len(missing)} of {len(paths)} images are missing" if len(missing) > 1 else ""
            raise UserError(
                f"{self.file}, line {lines[first]}: there is no image file {first!r}{hint}{others} "
                "(paths are relative to the CSV)."
            )

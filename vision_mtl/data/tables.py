"""Text files of users: decoded or refused by one clear error, and CSV files as a header and rows.

Quoted cells may hold line breaks, delimiters and quotation marks. Lines end with LF, CR LF or CR, and nothing else ends
one: a cell may hold U+2028.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vision_mtl.core.errors import UserError

DELIMITERS = ",;\t"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
END = "end of the file"  # a row added after the last one, to find a quotation mark that is never closed


@dataclass(frozen=True)
class Table:
    """A CSV file's column names, and (line, cells) of each row that is not blank; `line` is where the row begins."""

    header: list[str]
    rows: list[tuple[int, list[str]]]


def read_text(path: Path) -> str:
    """Return a file's text, in UTF-8 or, with a byte-order mark, in UTF-16.

    Raises `UserError` for another encoding, and for a file that is not text, `OSError` for one that cannot be read.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{str(path)!r} is not {encoding[:6].upper()} text ({error.reason} at byte {error.start}, line {line}); "
            "save it as UTF-8."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{str(path)!r}, line {line}, has a NUL character: it is not a text file. Save it as UTF-8.")
    return text


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without their ends; see `read_text`."""
    return re.split(r"\r\n|\n|\r", read_text(path))


def read_table(path: Path) -> Table:
    """Return a CSV file whose cells are separated by commas, semicolons or tabs.

    Raises `UserError`, with the line, for a file without a row, a column named twice, a row with more or fewer cells
    than the header, a cell that is too long, and a quotation mark that is never closed.
    """
    text = read_text(path)
    named = re.match(r"sep=(.)\r?\n", text)  # a first line that Excel writes and reads
    delimiter = named[1] if named else _delimiter(path, text)
    rows = list(_rows(path, text[named.end() :] if named else text, delimiter, 2 if named else 1))
    if not rows:
        raise UserError(f"{str(path)!r} is empty: its first line must name the columns.")
    header = [name.strip() for name in rows[0][1]]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise UserError(f"{str(path)!r}: column {doubled[0]!r} is named twice.")
    ragged = [(line, row) for line, row in rows if len(row) != len(header)]
    if ragged:
        line, row = ragged[0]
        others = f" {len(ragged) - 1} more rows differ." if len(ragged) > 1 else ""
        raise UserError(
            f"{str(path)!r}, line {line}: the header has {len(header)} columns, the row {len(row)}.{others} "
            f"Put a cell that contains {delimiter!r} into quotation marks."
        )
    return Table(header, rows[1:])


def _rows(path: Path, text: str, delimiter: str, line: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of the rows of `text`, which begins at `line`, without blank rows."""
    reader = csv.reader(chain(io.StringIO(text, newline=""), ["\n", f"{END}\n"]), delimiter=delimiter)
    start, before = line, None
    try:
        for row in reader:
            if before is not None and any(cell.strip() for cell in before[1]):
                yield before
            start, before = line + reader.line_num, (start, row)
    except csv.Error as error:
        raise UserError(_reason(path, start, error)) from error
    if before is not None and before[1] != [END]:
        raise UserError(f"{str(path)!r}, line {before[0]}: a quotation mark is opened and never closed.")


def _reason(path: Path, line: int, error: csv.Error) -> str:
    if "field limit" in str(error):
        limit = csv.field_size_limit()
        return f"{str(path)!r}, line {line}: a cell has more than {limit:,} characters; is a quotation mark missing?"
    return f"{str(path)!r}, line {line}: not a row of a CSV file ({error})."


def _delimiter(path: Path, text: str) -> str:
    """Return the delimiter that gives the first row most cells; the comma in doubt."""

    def cells(delimiter: str) -> int:
        try:
            return len(next(_rows(path, text, delimiter, 1), (1, []))[1])
        except UserError:  # reading the file by the chosen delimiter raises it again
            return 0

    return max(DELIMITERS, key=cells)

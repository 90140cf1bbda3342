"""CSV files and other text files: any cell is read as it was written, or one error says why not."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.source import Item, open_source
from vision_mtl.data.tables import read_lines, read_table, read_text

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
cells = st.one_of(
    st.text(characters, max_size=8), st.sampled_from(['"', '""', "a\nb", "a\r\nb", ",", ";", "\t", "#", "'"])
)
tables = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=5))


def written(folder: Path, data: str | bytes) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def items(folder: Path, text: str | bytes) -> dict[str, Item]:
    return {item.identity: item for item in open_source(f"csv/{written(folder, text)}", folder).items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", " c.png", "d, e.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


@FEW
@given(tables, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]))
def test_what_was_written_is_read(tmp_path: Path, rows: list[list[str]], delimiter: str, end: str, mark: str) -> None:
    buffer, header = io.StringIO(), [f"name {number}" for number in range(len(rows[0]))]
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    table = read_table(written(tmp_path, mark + buffer.getvalue()))
    assert table.header == header
    assert [row for _, row in table.rows] == [row for row in rows if any(cell.strip() for cell in row)]


@FEW
@given(st.one_of(st.text(characters, max_size=60), st.binary(max_size=60)))
def test_any_file_is_read_or_refused(tmp_path: Path, data: str | bytes) -> None:
    file = written(tmp_path, data)
    try:
        table = read_table(file)
    except UserError:
        return
    assert all(len(row) == len(table.header) for _, row in table.rows)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_text(place: Path, encoding: str) -> None:
    assert items(place, "image,label\na.png,größe\n".encode(encoding))["a.png"].labels == {"label": "größe"}


def test_cells_hold_line_breaks_and_line_numbers_count_lines(place: Path) -> None:
    found = items(place, 'image,label,note\r\na.png,"two\nlines","x, ""y"""\r\nb.png,u\u2028v\x85w,\r\n')
    assert found["a.png"].labels == {"label": "two\nlines", "note": 'x, "y"'}
    assert found["b.png"].labels == {"label": "u\u2028v\x85w"}
    with pytest.raises(UserError, match=r"line 4: there is no image file 'gone\.png'"):
        items(place, 'image,label\na.png,"two\nlines"\ngone.png,x\n')


@pytest.mark.parametrize(
    "text", ["sep=;\nimage;label\na.png;x,y\n", "image\tlabel\na.png\tx,y\n", '"image";label\na.png;"x,y"']
)
def test_delimiters(place: Path, text: str) -> None:
    assert items(place, text)["a.png"].labels == {"label": "x,y"}


def test_names_with_spaces_and_commas(place: Path) -> None:
    found = items(place, 'image,label\n c.png,x\n"d, e.png",y\n a.png ,z\n')
    assert {name: item.labels["label"] for name, item in found.items()} == {
        " c.png": "x",
        "d, e.png": "y",
        "a.png": "z",
    }


def test_a_column_without_a_name_is_the_index_of_another_program(place: Path) -> None:
    assert items(place, ",image,label\n0,a.png,x\n1,b.png,y\n")["b.png"].labels == {"label": "y"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,x\nb.png,y\n", r"has no header: its first row names the image 'a\.png'\. Add a first row"),
        ("gone.png,x\nb.png,y\n", r"has no header: its first row names the image 'gone\.png'"),
        ("image,label\na.png," + "x" * 140_000 + "\n", r"line 2: a cell has more than 131,072 characters"),
        ('image,label\na.png,"x\nb.png,y\n', r"line 2: a quotation mark is opened and never closed"),
        ("image,label\na.png,x,y\nb.png,y,z\n", r"line 2: .* 2 columns, the row 3\. 1 more rows differ.* quotation"),
        ("image,label\na.png,x\0\n", r"line 2, has a NUL character"),
        (b"image,label\na.png,\xe9\n", r"is not UTF-8 text .* line 2\); save it as UTF-8"),
        (
            "image,label\ngone.png,x\nlost.png,y\n",
            r"line 2: there is no image file 'gone\.png'; 2 of 2 images are missing",
        ),
        (f"image,label\n{'x' * 300}.png,x\n", r"line 2: there is no image file"),
    ],
)
def test_errors_name_the_line(place: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        items(place, text)


def test_a_file_that_is_not_utf8_is_named_by_its_escapes(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/caf\xe9.png", os.O_CREAT))
    (item,) = items(tmp_path, "image,label\ncaf\\xe9.png,x\n").values()
    assert item.path is not None and os.fsencode(item.path).endswith(b"caf\xe9.png")


def test_lines_end_only_where_editors_end_them(tmp_path: Path) -> None:
    file = written(tmp_path, "a\u2028b\r\nc\x0bd\re\n")
    assert read_lines(file) == ["a\u2028b", "c\x0bd", "e", ""] and read_text(file).startswith("a")

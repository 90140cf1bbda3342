"""Names of any content as text, on one line, in any encoding, and as names of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.core.text import (
    MAX_STEM,
    encodable,
    file_stem,
    native_name,
    one_line,
    short_sources,
    valid_text,
    visible,
)

FEW = settings(max_examples=60, deadline=None)
anything = st.text(st.characters(), max_size=20)  # with surrogates
names = st.binary(min_size=1, max_size=20).map(os.fsdecode)  # as the system gives them


def test_bytes_that_are_not_utf8_are_escapes() -> None:
    assert valid_text(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert valid_text("dögs") == "dögs" and valid_text("\ud800x") == "\\ud800x"
    assert valid_text("d\udcc3\udcb6gs") == "dögs"  # an ASCII locale gives the same text as a UTF-8 one


@FEW
@given(anything)
def test_text_can_be_written_and_stays_if_it_is_valid(text: str) -> None:
    found = valid_text(text)
    found.encode()
    assert valid_text(found) == found
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert found == text


@FEW
@given(names.filter(lambda name: "\\x" not in name))
def test_an_escaped_name_names_the_file(name: str) -> None:
    assert os.fsencode(native_name(valid_text(name))) == os.fsencode(name)


@FEW
@given(anything)
def test_a_name_takes_one_line_that_is_not_blank(text: str) -> None:
    line = one_line(text)
    assert line.splitlines() == [line] and line.strip() and not set(line) & set("\x1b\t\u2028\u202e\x85")
    assert set(visible(text)) & set("\x1b\r\x9b\u202e") == set()


@FEW
@given(anything, st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8", "shift_jis", "utf-16", None, "no-such"]))
def test_any_encoding_can_hold_it(text: str, encoding: str | None) -> None:
    encodable(valid_text(text), encoding).encode("utf-8" if encoding in (None, "no-such") else encoding)


def test_lines_of_tables_become_hyphens() -> None:
    assert encodable("── ö…", "ascii") == "-- \\xf6..." and encodable("── ö", "utf-8") == "── ö"


def test_usual_names_are_names_of_files() -> None:
    for name in ("age", "größe", "a b", "golden-retriever_2", "x.y", "猫"):
        assert file_stem(name) == name


@pytest.mark.parametrize(
    "name", ["a/b", "..", "", "CON", "nul.txt", "x" * 300, "é" * 90, "a\nb", " a", "a.", "a\udce9"]
)
def test_other_names_get_a_file_of_their_own(name: str, tmp_path: Path) -> None:
    stem = file_stem(name)
    assert stem != name and len(stem.encode()) <= MAX_STEM and "/" not in stem
    (tmp_path / f"{stem}.csv").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.csv"]


@FEW
@given(st.lists(anything, unique_by=valid_text, max_size=8))
def test_two_names_have_two_files(found: list[str]) -> None:
    assert len({file_stem(name) for name in found}) == len(found)


def test_sources_are_named_by_their_task_or_the_end_of_their_path() -> None:
    cars, photos, other = "csv//x/cars/labels.csv", "images//x y/holiday/all", "folder//z/holiday/all"
    assert short_sources([cars, photos, "bundled/photos", "photos"]) == {
        cars: "cars/labels.csv",
        photos: "holiday/all",
        "bundled/photos": "bundled/photos",
        "photos": "photos",
    }
    assert short_sources([photos, other]) == {photos: "x y/holiday/all", other: "z/holiday/all"}
    tasks = {"people": other, "age": photos, "sex": photos}
    assert short_sources([photos, other], tasks) == {photos: "x y/holiday/all", other: "people"}, "the only task"
    escaped = "folder//home/caf\\xe9"
    assert short_sources([escaped], {"food": "folder//home/caf\udce9"}) == {escaped: "food"}


def test_sources_whose_short_names_are_equal_keep_their_own() -> None:
    cars = "images//a/b/cars"
    assert short_sources([cars, "cars"], {"cars": cars}) == {cars: cars, "cars": "cars"}
    assert short_sources(["folder//a/b", "folder/a/b"]) == {"folder//a/b": "folder//a/b", "folder/a/b": "folder/a/b"}

"""Words that may mean no label, and classes that differ only in spelling: neither is silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.spellings import spelling_warnings, without_blank_words
from vision_mtl.data.targets import Target


def task(**options: object) -> Task:
    return Task(source="csv/x.csv", **options)  # type: ignore[arg-type]


def pool_of(folder: Path, labels: list[str], **options: object) -> Pool:
    lines = ["image,label"]
    for number, label in enumerate(labels):
        Image.fromarray(np.full((4, 4, 3), 9 * number, np.uint8)).save(folder / f"{number}.png")
        lines.append(f'{number}.png,"{label}"')
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    given = Task(source=f"csv/{folder}/labels.csv", **options)  # type: ignore[arg-type]
    return build_pool(Data(root=str(folder / "root"), val_ratio=0.2), {"x": given}, image_size=(4, 4))


LABELS = ["cat", "dog"] * 8 + ["nan", "NaN", "N/A", "NULL", "None", "None", "-"]


def test_words_for_a_missing_value_are_no_label_and_a_warning_counts_them(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, LABELS)
    assert pool.class_names["x"] == ["-", "None", "cat", "dog"] and pool.targets["x"].labelled.sum() == 19
    first, second = (text for text in pool.warnings if "cells hold" in text)
    if "None" in first:
        first, second = second, first
    assert "4 cells hold 'nan' (1), 'NaN' (1), 'N/A' (1), 'NULL' (1), which is read as no label" in first
    assert first.endswith("If it is a class, give --tasks.x.missing '[]'.")
    assert "3 cells hold 'None' (2), '-' (1), which is read as a class" in second
    assert "give --tasks.x.missing nan NaN N/A NULL None -; if it is a class, --tasks.x.missing '[]'" in second


@pytest.mark.parametrize(
    ("missing", "classes"), [(["none", "-", "nan"], ["N/A", "NULL"]), ([], ["-", "N/A", "NULL", "NaN", "None", "nan"])]
)
def test_the_option_decides_without_a_warning(tmp_path: Path, missing: list[str], classes: list[str]) -> None:
    pool = pool_of(tmp_path, LABELS, missing=missing)
    assert set(pool.class_names["x"]) == {"cat", "dog", *classes}
    assert not [text for text in pool.warnings if "cells hold" in text]


def test_numbers_have_no_class_for_such_words() -> None:
    texts = ["1.5", "None", "NA", "nan", None]
    assert without_blank_words(task(kind="regression"), texts) == ["1.5", None, None, None, None]
    assert without_blank_words(task(), texts) == ["1.5", "None", "NA", None, None]


def test_a_folder_of_that_name_is_a_class(tmp_path: Path) -> None:
    for number in range(20):
        file = tmp_path / "set" / ("nan", "None")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 9 * number, np.uint8)).save(file)
    found = build_pool(
        Data(root=str(tmp_path / "root")), {"x": Task(source=f"folder/{tmp_path}/set")}, image_size=(4, 4)
    )
    assert found.class_names["x"] == ["None", "nan"]


def warned(names: list[str]) -> Findings:
    findings = Findings()
    values = np.arange(len(names))
    spelling_warnings({"x": Target("single_label", names, values)}, findings)
    return findings


@pytest.mark.parametrize(
    "names",
    [["1", "1.0"], ["7", "007"], ["Cat", "cat"], ["cat", " cat "], ["a b", "a  b"], ["x", "x\u200b"], ["ﬁn", "fin"]],
)
def test_spellings_of_one_class_are_named(names: list[str]) -> None:
    (warning,) = warned([*names, "other"]).of("warning")
    assert f"{names[0]!r} (1 images) and {names[1]!r} (1 images)" in warning.text and warning.images == 2


def test_names_that_look_the_same_are_shown_in_ascii() -> None:
    (warning,) = warned(["caf\xe9", "cafe\u0301"]).of("warning")
    assert r"'caf\xe9' (1 images) and 'cafe\u0301' (1 images)" in warning.text


def test_other_classes_are_not_alike() -> None:
    assert warned(["1", "2", "10", "cat", "cats", "c at", "C3", "c4", "a_b", "a-b"]).all == []


def test_a_blank_class_is_an_error() -> None:
    assert "the class ' ' has a blank name" in warned([" ", "a"]).of("error")[0].text

"""Every run's file of splits, and later runs that keep them: grown, shrunken and moved folders, names of any kind."""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.source import SPLITS, Item
from vision_mtl.data.split_files import KeptSplits, is_split_file, read_splits, split_hash, write_splits

NAMES = st.text(
    st.one_of(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), st.sampled_from(",;\"'\t\r\n =+-@")),
    min_size=1,
)


def save(folder: Path, numbers: range, shift: int = 0) -> str:
    """Write images of two classes to a folder, noise that differs from number to number; return the source."""
    for number in numbers:
        file = folder / "ab"[number % 2] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number + shift).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    return f"folder/{folder}"


def open_pool(root: Path, tasks: dict[str, Task], unlabelled: list[str] | None = None, **options) -> Pool:
    run_splits = options.pop("run_splits", None)
    return build_pool(
        Data(root=str(root), unlabelled=unlabelled, **options), tasks, image_size=(8, 8), run_splits=run_splits
    )


def named(pool: Pool) -> dict[str, str]:
    """The split of each image by its identity in its source."""
    pairs = (zip(names, splits.tolist(), strict=True) for names, splits in pool.assigned.values())
    return {name: SPLITS[split] for pair in pairs for name, split in pair}


def written(pool: Pool, folder: Path) -> str:
    write_splits(folder / "splits.csv", pool.assigned)
    return str(folder / "splits.csv")


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 2), min_size=1), st.booleans())
def test_any_name_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, splits: dict, as_spreadsheet: bool
) -> None:
    path = tmp_path_factory.mktemp("names") / "splits.csv"
    write_splits(path, {"folder/x": (list(splits), np.array(list(splits.values())))})
    if as_spreadsheet:  # which begins its files with a byte-order mark
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert is_split_file(path)
    items = [Item(name) for name in splits]
    findings = Findings()
    kept = KeptSplits(path, "x").apply(items, "folder/x", findings)
    assert {item.identity: item.kept for item in kept} == {name: SPLITS[n] for name, n in splits.items()}
    assert not findings.all


def test_names_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    names = ["=a.png", "'=a.png", "''=a.png", "-1", "a'.png"]
    write_splits(tmp_path / "splits.csv", {"folder/x": (names, np.arange(5) % 3)})
    assert list(read_splits(tmp_path / "splits.csv")["folder/x"]) == names
    assert "\nfolder/x,'=a.png,train\n" in (tmp_path / "splits.csv").read_text()


def test_names_that_are_not_utf8_survive_the_file(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), "café.png"]
    write_splits(tmp_path / "splits.csv", {"folder/x": (names, np.array([0, 2]))})
    assert b"caf\xe9.png" in (tmp_path / "splits.csv").read_bytes()
    assert read_splits(tmp_path / "splits.csv")["folder/x"] == {names[0]: "train", names[1]: "test"}


def test_another_unicode_form_is_the_same_image(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits.csv", {"folder/x": ([normalize("NFD", "dögs/1.png")], np.array([2]))})
    (item,) = KeptSplits(tmp_path / "splits.csv", "x").apply([Item("dögs/1.png")], "folder/x", Findings())
    assert item.kept == "test"


@pytest.mark.parametrize("rule", ["proportional", "independent"])
def test_a_grown_folder_keeps_its_test_images(tmp_path: Path, rule: str) -> None:
    source = save(tmp_path / "set", range(60))
    first = open_pool(tmp_path, {"t": Task(source=source)}, split_rule=rule)
    file = written(first, tmp_path)
    save(tmp_path / "set", range(60, 160))
    grown = open_pool(tmp_path, {"t": Task(source=source, split=file)}, split_rule=rule)
    before, now = named(first), named(grown)
    assert {name: now[name] for name in before} == before and len(now) == 160
    assert any("100 images of" in str(f) and "their splits are drawn" in f.text for f in grown.findings)
    if rule == "proportional":
        for letter in "ab":
            new = [split for name, split in now.items() if name not in before and name.startswith(letter)]
            assert [new.count(split) for split in SPLITS] == [35, 5, 10]
        assert named(open_pool(tmp_path, {"t": Task(source=source)})) != now


def test_the_same_file_for_all_sources_of_a_run_that_moved(tmp_path: Path) -> None:
    cars, pile = save(tmp_path / "old/cars", range(40)), save(tmp_path / "old/pile", range(40, 80))
    first = open_pool(tmp_path, {"t": Task(source=cars)}, [f"images/{tmp_path}/old/pile"])
    file = written(first, tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    sources = {"t": Task(source=cars.replace("/old/", "/new/"))}, [f"images/{tmp_path}/new/pile"]
    save(tmp_path / "new/pile", range(80, 83))
    again = open_pool(tmp_path, *sources, split_file=file, split_seed=5, test_ratio=0.5)
    assert {name: named(again)[name] for name in named(first)} == named(first)
    other = open_pool(tmp_path, {}, [save(tmp_path / "others", range(100, 140))], split_file=file)
    (warning,) = (w for w in other.warnings if "lists no image of" in w)
    assert "their splits" not in warning and pile


def test_a_file_of_one_source_fits_a_renamed_folder(tmp_path: Path) -> None:
    first = open_pool(tmp_path, {"t": Task(source=save(tmp_path / "cars", range(40)))})
    file = written(first, tmp_path)
    (tmp_path / "cars").rename(tmp_path / "cars 2")
    task = Task(source=f"folder/{tmp_path}/cars 2", split=file)
    assert named(open_pool(tmp_path, {"t": task}, split_seed=3)) == named(first)
    two = {"folder/x": (["1.png"], np.array([0])), "folder/y": (["1.png"], np.array([0]))}
    write_splits(tmp_path / "two.csv", two)
    with pytest.raises(UserError, match=r"tasks\.t\.split .*lists no image of .*its sources: folder/x, folder/y"):
        open_pool(tmp_path, {"t": Task(source=task.source, split=str(tmp_path / "two.csv"))})


def test_vanished_images_are_counted_and_vanished_tests_are_an_error(tmp_path: Path) -> None:
    source = save(tmp_path / "set", range(60))
    file = written(open_pool(tmp_path, {"t": Task(source=source)}), tmp_path)
    test = [name for name, split in read_splits(Path(file))[source].items() if split == "test"]
    for name in test[1:]:
        (tmp_path / "set" / name).unlink()
    pool = open_pool(tmp_path, {"t": Task(source=source, split=file)})
    assert any(f"{len(test) - 1} of 60 images" in w and f"{len(test) - 1} of them test" in w for w in pool.warnings)
    assert named(pool)[test[0]] == "test" and list(named(pool).values()).count("test") == 1
    (tmp_path / "set" / test[0]).unlink()
    with pytest.raises(UserError, match=r"none of the test images \(12\) that tasks\.t\.split .* lists .* is there"):
        open_pool(tmp_path, {"t": Task(source=source, split=file)})
    other = save(tmp_path / "other set", range(100, 130))
    with pytest.raises(UserError, match=r"none of the images \(60\) that tasks\.t\.split"):
        open_pool(tmp_path, {"t": Task(source=other, split=file)})


def test_missing_images_stay_in_the_file_until_they_come_back(tmp_path: Path) -> None:
    source = save(tmp_path / "set", range(40))
    first = open_pool(tmp_path, {"t": Task(source=source)})
    file = Path(written(first, tmp_path))
    (tmp_path / "set/a/000.png").rename(tmp_path / "away.png")
    written(open_pool(tmp_path, {"t": Task(source=source)}, run_splits=file), tmp_path)
    (tmp_path / "away.png").rename(tmp_path / "set/a/000.png")
    assert named(open_pool(tmp_path, {"t": Task(source=source)}, run_splits=file)) == named(first)


def test_official_splits_and_copies_come_out_the_same_again(tmp_path: Path) -> None:
    for split, numbers in (("train", range(40)), ("test", range(36, 60))):  # four test images are copies
        save(tmp_path / "set" / split, numbers)
    source = f"folder/{tmp_path}/set"
    first = open_pool(tmp_path, {"t": Task(source=source)})
    again = open_pool(tmp_path, {"t": Task(source=source)}, run_splits=Path(written(first, tmp_path)))
    assert np.array_equal(first.split, again.split) and (first.split == -1).sum() == 4
    # new images: those of the official test folder are test, of those for training a share is val
    save(tmp_path / "set/train", range(60, 80)), save(tmp_path / "set/test", range(80, 90))
    grown = open_pool(tmp_path, {"t": Task(source=source)}, run_splits=tmp_path / "splits.csv")
    new = {name: split for name, split in named(grown).items() if name not in named(first)}
    assert all(split == "test" for name, split in new.items() if name.startswith("test"))
    train = [split for name, split in new.items() if name.startswith("train")]
    assert [train.count(split) for split in SPLITS] == [18, 2, 0]


@pytest.mark.parametrize("rule", ["proportional", "independent"])
def test_a_copy_of_a_listed_image_joins_it(tmp_path: Path, rule: str) -> None:
    source = save(tmp_path / "set", range(60))
    first = open_pool(tmp_path, {"t": Task(source=source)}, split_rule=rule)
    for name in named(first):
        file = tmp_path / "set" / name
        file.with_name(f"copy of {file.name}").write_bytes(file.read_bytes())
    grown = open_pool(tmp_path, {"t": Task(source=source, split=written(first, tmp_path))}, split_rule=rule)
    found = named(grown)
    assert all(found[name.replace("/", "/copy of ")] == split for name, split in named(first).items())


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "splits.csv"
    for text, why in (
        ("source,image,split\nfolder/x,a.png,tset\n", r"line 2: .*found 'folder/x, a\.png, tset'"),
        ("source,image,split\nfolder/x,a.png\n", r"line 2: wanted a source"),
        ("source,image,split\nx,a,test\nx,a,train\n", r"line 3: 'a' is in test and in train"),
        ("source,image,split\n", "names no image"),
        ("image,split\na,test\n", "must begin with the line source,image,split"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=why):
            read_splits(file)
    with pytest.raises(UserError, match="cannot read the split file"):
        read_splits(tmp_path / "none.csv")
    assert not is_split_file(file) and not is_split_file(tmp_path)


def test_a_spreadsheet_may_change_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text('"source";"image";"split"\r\nfolder/x;"a;b.png";Test\r\n')
    assert is_split_file(tmp_path / "splits.csv")
    assert read_splits(tmp_path / "splits.csv") == {"folder/x": {"a;b.png": "test"}}


def test_two_files_that_disagree_are_an_error(tmp_path: Path) -> None:
    source = save(tmp_path / "set", range(40))
    pool = open_pool(tmp_path, {"t": Task(source=source)})
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = (
        written(pool, tmp_path / "a"),
        written(open_pool(tmp_path, {"t": Task(source=source)}, split_seed=1), tmp_path / "b"),
    )
    with pytest.raises(UserError, match=r"is in \w+ by tasks\.u\.split .*elsewhere in"):
        open_pool(tmp_path, {"t": Task(source=source, split=first), "u": Task(source=source, split=second)})


def test_the_hash_of_splits_changes_with_any_image_and_not_with_order_or_folder() -> None:
    def found(folder: str, names: list[str], splits: list[int]) -> str:
        return split_hash({f"images//{folder}/pile": (names, np.array(splits))})

    first = found("a", ["x", "y", "z"], [0, 1, 2])
    assert first == found("b", ["z", "x", "y"], [2, 0, 1])
    moved = [
        found("a", ["x", "y", "z"], [0, 2, 2]),
        found("a", ["x", "y"], [0, 1]),
        found("a", ["x", "y", "w"], [0, 1, 2]),
    ]
    assert len({first, *moved}) == 4

"""Options `label_from`, `split` and `group`, and error messages for wrong ones."""

from pathlib import Path

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.data.labels import apply_group, apply_label_from, apply_split
from vision_mtl.data.source import Item

CATS = [
    Item(f"images/Bengal_{i}.jpg", labels={"fold": "test" if i > 2 else "train", "cat": str(i % 2)}) for i in range(4)
]
DOGS = [Item(f"images/beagle_{i}.jpg", labels={"fold": "validation", "owner": "ann"}) for i in range(2)]
ITEMS = CATS + DOGS


def splits(items: list[Item]) -> list[str | None]:
    return [item.split for item in items]


def test_labels_from_paths() -> None:
    found = apply_label_from(ITEMS, r"images/([A-Za-z]+)_\d+", "breed")
    assert [item.labels["breed"] for item in found] == ["Bengal"] * 4 + ["beagle"] * 2
    assert found[0].labels["cat"] == "0" and "breed" not in ITEMS[0].labels


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "not a regular expression"), ("Bengal", "no group"), (r"(Bengal)_", r"matches 4 of 6 files.*beagle_0")],
)
def test_bad_patterns(pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        apply_label_from(ITEMS, pattern)


def test_a_column_of_splits_in_any_usual_word() -> None:
    assert splits(apply_split(ITEMS, "fold", Path())) == ["train"] * 3 + ["test"] + ["val"] * 2


def test_a_column_with_another_word_is_refused() -> None:
    with pytest.raises(UserError, match="train, val or test; found '0'"):
        apply_split(ITEMS, "cat", Path())


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'fodl' is not a column.*Did you mean 'fold'.*Columns: cat, fold, owner"):
        apply_split(ITEMS, "fodl", Path())


def test_official_lists_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "trainval.txt").write_text("# comment\nBengal_0 1 1 1\nBengal_1 1 1 1\nbeagle_0 2 2 1\n")
    (tmp_path / "test.txt").write_text("Bengal_2 1 1 1\nBengal_3 1 1 1\n")
    found = apply_split(ITEMS, "trainval.txt, test.txt", tmp_path)
    assert splits(found) == ["train", "train", "test", "test", "train", None]


def test_a_list_of_test_images_leaves_the_rest_to_train(tmp_path: Path) -> None:
    (tmp_path / "my_test.txt").write_text("images/Bengal_2.jpg\n")
    assert splits(apply_split(ITEMS, "my_test.txt", tmp_path)) == ["train", "train", "test"] + ["train"] * 3


def test_a_csv_with_a_split_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("image,split\nBengal_0.jpg,train\nBengal_1.jpg,val\nbeagle_1.jpg,test\n")
    assert splits(apply_split(ITEMS, "splits.csv", tmp_path)) == ["train", "val", None, None, None, "test"]


def test_comments_and_names_of_any_content(tmp_path: Path) -> None:
    names = ["a.png", "my cat.png", "img #1.png", "x, y.png", "b.png", "caf\\xe9.png", "u\u2028v.png"]
    (tmp_path / "lists.txt").write_text(
        "\ufeff# held out\r\na.png train  # not test\r\nmy cat.png test\nimg #1.png val # no. 1\n"
        '"x, y.png",test # x\nb.png train # test\ncaf\\xe9.png test\nu\u2028v.png test\n',
        encoding="utf-8",
    )
    found = apply_split([Item(name) for name in names], "lists.txt", tmp_path)
    assert splits(found) == ["train", "test", "val", "test", "train", "test", "test"]


def test_a_comment_after_a_name_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("Bengal_0 # train\nBengal_1.jpg # see Bengal_2 val\n")
    assert splits(apply_split(ITEMS, "test.txt", tmp_path))[:3] == ["test", "test", "train"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("my cat.png test\n", r"line 1: 'my' and 'my cat\.png' are both images.*\"my cat\.png\",train"),
        ("\xe9".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_lists_that_are_not_clear(tmp_path: Path, text: str | bytes, words: str) -> None:
    (tmp_path / "all.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=words):
        apply_split([Item("my.png"), Item("my cat.png")], "all.txt", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody.jpg\n", "'nobody.jpg' is not an image of this source"),
        ("", "names no image"),
        ("Bengal_0 test\nBengal_0 train\n", "'Bengal_0' is in test and in train"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "test.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        apply_split(ITEMS, "test.txt", tmp_path)


def test_an_ambiguous_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("same\n")
    with pytest.raises(UserError, match="names 2 images; give its folder"):
        apply_split([Item("a/same.png"), Item("b/same.png")], "test.txt", tmp_path)


def test_a_missing_list_among_lists_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("Bengal_0\n")
    with pytest.raises(UserError, match=r"there is no file 'train.txt'"):
        apply_split(ITEMS, "train.txt,test.txt", tmp_path)


def test_folders_give_splits() -> None:
    items = [Item("a/one/1.png"), Item("b/one/2.png"), Item("c/one/3.png"), Item("other/4.png")]
    assert splits(apply_split(items, "a,b,c", Path())) == ["train", "val", "test", None]
    assert splits(apply_split(items, "a,c", Path())) == ["train", None, "test", None]
    with pytest.raises(UserError, match="no image is in a folder named 'd'"):
        apply_split(items, "a,b,d", Path())


def test_groups() -> None:
    assert [item.group for item in apply_group(ITEMS, "owner")] == [None] * 4 + ["ann"] * 2
    with pytest.raises(UserError, match="group 'ownr' is not a column"):
        apply_group(ITEMS, "ownr")

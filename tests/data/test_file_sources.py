"""`images/`, `folder/` and `csv/`: paths as users write them, and error messages for wrong ones."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.source import Item, open_source


def items(name: str, root: Path = Path()) -> dict[str, Item]:
    found = open_source(name, root).items()
    assert len({item.identity for item in found}) == len(found)
    return {item.identity: item for item in found}


def test_a_folder_gives_classes_and_ignores_other_files(photo_folder: Path) -> None:
    found = items(f"folder/{photo_folder}")
    assert len(found) == 24
    assert found["dögs/image 13.png"].labels == {"label": "dögs"}
    assert found["dögs/image 13.png"].path == (photo_folder / "dögs/image 13.png").resolve()
    assert all(item.split is None for item in found.values())


def test_images_have_no_labels_and_globs_work(photo_folder: Path) -> None:
    assert len(items(f"images/{photo_folder}")) == 24
    assert not any(item.labels for item in items(f"images/{photo_folder}").values())
    assert len(items(f"images/{photo_folder}/**/image 0*.png")) == 10
    assert list(items(f"images/{photo_folder}/cats/image 03.png")) == ["image 03.png"]


def test_read_returns_the_pixels(photo_folder: Path, picture) -> None:
    source = open_source(f"folder/{photo_folder}", Path())
    item = next(item for item in source.items() if item.identity == "dögs/image 15.png")
    assert np.array_equal(source.read(item), picture(15))


def test_split_folders_are_official_splits(photo_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "set"
    for split in ("train", "test"):
        (base / split).mkdir(parents=True)
        (base / split / "cats").symlink_to(photo_folder / "cats")
    found = items(f"folder/{base}")
    assert {item.split for item in found.values()} == {"train", "test"}
    assert {item.labels["label"] for item in found.values()} == {"cats"}


def test_classes_called_train_and_plane_are_classes(photo_folder: Path, tmp_path: Path) -> None:
    for name in ("train", "plane"):
        (tmp_path / "vehicles").mkdir(exist_ok=True)
        (tmp_path / "vehicles" / name).symlink_to(photo_folder / "cats")
    assert {item.labels["label"] for item in items(f"folder/{tmp_path / 'vehicles'}").values()} == {"train", "plane"}


def test_a_missing_path_suggests_the_nearest(photo_folder: Path) -> None:
    with pytest.raises(UserError, match=r"there is no '.*my photos'.*Did you mean '.*my phötos'"):
        items(f"images/{photo_folder.parent / 'my photos'}")
    with pytest.raises(UserError, match="no image in"):
        (photo_folder / "empty").mkdir()
        items(f"images/{photo_folder / 'empty'}")


@pytest.mark.parametrize("path", ["/abs/path", "x", "~/photos", "./photos", "../photos"])
def test_a_path_without_a_kind_explains_how_to_write_a_source(path: str) -> None:
    ways = re.escape(f"write folder/{path}, for images without labels images/{path}")
    with pytest.raises(UserError, match=rf"a source is written KIND/REST; found '{path}'.*class {ways}.*Kinds: .*csv"):
        open_source(path, Path())


def test_an_existing_relative_path_explains_how_to_write_a_source(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo_folder.parent)
    path = f"{photo_folder.name}/cats"
    with pytest.raises(UserError, match=re.escape(f"write folder/{path}, ")):
        open_source(path, Path())
    assert len(items(f"folder/{path}")) == 12


def test_a_source_is_kind_and_rest() -> None:
    with pytest.raises(UserError, match=r"a source is written KIND/REST"):
        items("folder")
    with pytest.raises(UserError, match=r"unknown source 'foldr'\. Did you mean 'folder'"):
        items("foldr/x")


def write_csv(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return f"csv/{folder / 'labels.csv'}"


def test_csv_columns_are_labels_and_blanks_are_missing(photo_folder: Path) -> None:
    name = write_csv(
        photo_folder,
        "breed,File,colour\nbengal, cats/image 00.png ,grey\n,cats/image 01.png,\nbeagle,dögs\\image 12.png,\n",
    )
    found = items(name)
    assert found["cats/image 00.png"].labels == {"breed": "bengal", "colour": "grey"}
    assert found["cats/image 01.png"].labels == {}
    assert found["dögs/image 12.png"].labels == {"breed": "beagle"}


def test_rows_of_one_image_are_merged(photo_folder: Path) -> None:
    name = write_csv(photo_folder, "image;a;b\ncats/image 00.png;1;\ncats/image 00.png;;2\n")
    assert items(name)["cats/image 00.png"].labels == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,a\nnone.png,1\n", r"line 2: there is no image file 'none\.png'"),
        ("image,a\ncats/image 00.png,1,2\n", r"line 2: the header has 2 columns, the row 3"),
        ("image,a,a\nx,1,2\n", r"column 'a' is named twice"),
        ("", "is empty"),
        ("image,a\n", "names no image"),
        (
            "image,a\ncats/image 00.png,1\ncats/image 00.png,2\n",
            r"line 3: 'cats/image 00.png' has a '2', but '1' in line 2",
        ),
    ],
)
def test_bad_csv_files_are_named_by_line(photo_folder: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        items(write_csv(photo_folder, text))


def test_a_csv_in_another_encoding_is_named(photo_folder: Path) -> None:
    (photo_folder / "labels.csv").write_bytes("image,a\nx,ö\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        items(f"csv/{photo_folder / 'labels.csv'}")


def test_hidden_files_and_uppercase_suffixes(tmp_path: Path) -> None:
    for name in ("A.JPG", "b.jpeg", ".c.png", "d.txt"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    assert list(items(f"images/{tmp_path}")) == ["A.JPG", "b.jpeg"]


def test_the_kind_of_a_plain_path_is_suggested_by_its_suffix(tmp_path: Path) -> None:
    for name, way in (("a.csv", "csv/"), ("a.tar", "wds/"), ("a", "folder/")):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=f"write {way}{tmp_path}/{name}"):
            open_source(str(tmp_path / name), tmp_path)


def test_an_absolute_path_without_its_slash_is_explained(image_folder: Path) -> None:
    with pytest.raises(UserError, match=f"An absolute path keeps its slash: KIND/{image_folder}"):
        open_source(f"folder/{str(image_folder)[1:]}", Path()).items()

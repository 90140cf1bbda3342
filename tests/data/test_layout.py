"""Folder layouts: which folders are splits, which are classes, and which cannot be told apart."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.assemble import list_source
from vision_mtl.data.findings import Findings
from vision_mtl.data.layout import Layout, Place, read_layout
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.source import SPLITS, open_source


def layout(*folders: str) -> Layout:
    return read_layout("set", Counter({tuple(f.split("/")) if f else (): 2 for f in folders}))


def places(found: Layout, *folders: str) -> list[tuple[str | None, str | None]]:
    read = [found.place(tuple(folder.split("/"))) for folder in folders]
    return [(place.split, place.label) for place in read]


def draw(folder: Path, *names: str) -> Path:
    """Write a different picture for each name; `a/b*5` stands for five of them in a folder."""
    number = 0
    for name in names:
        place, _, count = name.partition("*")
        for _ in range(int(count or 1)):
            number += 1
            file = folder / (f"{place}/{number:03d}.png" if count else place)
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
    return folder


def pool_of(folder: Path, task: dict[str, object] | None = None, **options: object) -> Pool:
    tasks = {"t": Task(source=f"folder/{folder}", **(task or {}))}
    return build_pool(Data(root=str(folder.parent / "root"), **options), tasks, image_size=(8, 8))


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Training", "Testing"), ("TRAIN", "val"), ("trainval", "Validation"), ("Train", "dev")],
)
@pytest.mark.parametrize("above", ["", "pets_v2/", "a/b/"])
def test_split_words_in_any_case_at_the_top_or_below_the_only_folder(above: str, train: str, test: str) -> None:
    found = layout(f"{above}{train}/cat", f"{above}{train}/dog/day", f"{above}{test}/cat")
    held_out = "test" if "est" in test else "val"
    assert places(found, f"{above}{train}/dog/day", f"{above}{test}/cat") == [("train", "dog"), (held_out, "cat")]
    assert bool(above) == any("holds them" in finding.text for finding in found.findings)


def test_class_folders_are_classes() -> None:
    found = layout("cat", "dog/day1", "")
    assert places(found, "cat", "dog/day1") == [(None, "cat"), (None, "dog")]
    assert found.place(()) == Place() and not found.findings and found.unclear is None


def test_classes_that_contain_the_splits() -> None:
    found = layout("cat/train", "cat/Test", "dog/train")
    assert places(found, "cat/train", "cat/Test", "dog/train") == [("train", "cat"), ("test", "cat"), ("train", "dog")]
    assert found.unclear is None


def test_other_folders_beside_the_splits() -> None:
    found = layout("train/cat", "test/cat", "unlabeled/x", "misc", "")
    assert found.place(("unlabeled", "x")) == Place("train", None, "unlabeled")
    assert found.place(("misc",)).beside == "misc" and found.place(()).beside == "."
    assert layout("train/cat", "train/dog", "Extra").place(("Extra",)).beside == "Extra"


def test_train_alone_is_the_training_split() -> None:
    found = layout("train/cat", "train/dog")
    assert places(found, "train/cat") == [("train", "cat")] and found.unclear is None
    assert "validation and test images are drawn" in found.findings[0].text


@pytest.mark.parametrize("folders", [["train", "test"], ["Train", "Val", "test"]])
def test_flat_splits_are_splits_without_labels(folders: list[str]) -> None:
    found = layout(*folders)
    assert all(split is not None and label is None for split, label in places(found, *folders))
    assert found.unclear is None


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_called_like_a_split_is_a_class_with_a_warning(name: str) -> None:
    found = layout("cat", "dog", name)
    assert places(found, name, "cat") == [(None, name), (None, "cat")]
    (warning,) = found.findings
    assert warning.severity == "warning" and f"{name!r} is read as a class like cat, dog" in warning.text


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["cat", "dog", "test/cat", "test/dog"], "test beside cat, dog may be splits or classes"),
        (["train/cat", "plane"], "train beside plane may be splits or classes"),
        (["cat", "dog", "val", "test"], "test, val beside cat, dog may be"),
        (["train", "test", "unlabeled"], "test, train beside unlabeled may be"),
        (["2020/train/cat", "2021/test/cat"], "test, train lie inside other folders, with further folders"),
        (["cat/train", "cat/test", "dog"], "test, train lie inside other folders, but 2 images are outside"),
        (["test/cat", "test/dog"], "test are held-out splits, and there is no folder train"),
        (["val/cat", "test/dog"], "there is no folder train"),
        (["train/cat", "train/dog", "test"], "the images in test lie in no class folder"),
    ],
)
def test_what_cannot_be_told_apart_is_an_error_for_labels_from_folders(folders: list[str], words: str) -> None:
    found = layout(*folders)
    assert found.unclear is not None and found.unclear.severity == "error" and found.unclear.advice
    assert words in found.unclear.text


def test_one_folder_called_like_a_split_inside_one_class_is_a_warning() -> None:
    found = layout("vehicles/train", "vehicles/bus", "animals")
    assert found.unclear is None and found.findings[0].severity == "warning"
    assert places(found, "vehicles/train") == [(None, "vehicles")]


def test_unclear_folders_stop_only_tasks_that_take_labels_from_them(tmp_path: Path) -> None:
    folder = draw(tmp_path / "years", "2020/train/cat*6", "2020/train/dog*6", "2021/test/cat*4", "2021/test/dog*4")
    with pytest.raises(UserError, match=r"lie inside other folders, with further.*label_from"):
        pool_of(folder)
    by_path = {"label_from": r"([^/]+)/[^/]+$"}
    assert any("They give no split" in warning for warning in pool_of(folder, by_path).warnings)
    found = pool_of(folder, by_path | {"split": "train,test"})
    assert not found.warnings and len(found.indices("test")) == 8 and found.class_names["t"] == ["cat", "dog"]


def test_capital_split_folders(tmp_path: Path) -> None:
    pool = pool_of(draw(tmp_path / "s", "Training/cat*9", "Training/dog*9", "Testing/cat*3", "Testing/dog*3"))
    assert pool.class_names["t"] == ["cat", "dog"]
    assert {i for i in pool.indices("test").tolist()} == {
        n for n, name in enumerate(pool.identities) if "Testing" in name
    }


def test_a_further_folder_is_left_out_or_unlabelled(tmp_path: Path) -> None:
    names = ["train/cat*9", "train/dog*9", "test/cat*3", "test/dog*3", "unlabeled/x*6"]
    folder = draw(tmp_path / "s", *names)
    left_out = pool_of(folder)
    assert len(left_out) == 24 and left_out.class_names["t"] == ["cat", "dog"]
    (warning,) = [w for w in left_out.warnings if "beside" in w]
    assert "'unlabeled' (6)" in warning and "--data.other_folders unlabelled" in warning
    used = pool_of(folder, other_folders="unlabelled", val_ratio=0.4)
    extra = [n for n, name in enumerate(used.identities) if "unlabeled" in name]
    assert len(used) == 30 and len(extra) == 6 and not used.targets["t"].labelled[extra].any()
    assert (used.split[extra] == SPLITS.index("train")).all() and not [w for w in used.warnings if "beside" in w]
    labelled = pool_of(folder, {"label_from": "(cat|dog|x)/"}, other_folders="unlabelled")
    assert not labelled.targets["t"].labelled[extra].any() and labelled.class_names["t"] == ["cat", "dog"]
    same = dict(zip(left_out.identities, left_out.split.tolist(), strict=True))
    assert all(same.get(name, 0) == s for name, s in zip(labelled.identities, labelled.split.tolist(), strict=True))


def test_an_unlabelled_source_uses_its_further_folders(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "train/cat*3", "test/cat*3", "unlabeled*6")
    pool = build_pool(Data(unlabelled=[f"folder/{folder}"], root=str(tmp_path)), {}, image_size=(8, 8))
    assert len(pool) == 12 and len(pool.indices("test")) == 3


def test_one_folder_around_the_classes_is_refused_by_name(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "pets/cat*6", "pets/dog*6")
    with pytest.raises(
        UserError, match=r"every training label is 'pets'.*cat, dog.*--tasks\.t\.source folder/.*/s/pets"
    ):
        pool_of(folder)
    assert pool_of(folder / "pets").class_names["t"] == ["cat", "dog"]


def test_a_class_without_readable_image_is_named_with_its_suffixes(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "cat*9", "dog*9")
    (folder / "bird/day").mkdir(parents=True)
    for number in range(4):
        (folder / f"bird/day/{number}.HEIC").write_bytes(b"x")
    (folder / "owl").mkdir()
    pool = pool_of(folder)
    (bird,) = [w for w in pool.warnings if "class 'bird' has no readable image" in w]
    assert "4 .HEIC" in bird
    assert any("class 'owl' has no readable image; it holds no file" in w for w in pool.warnings)
    assert pool.class_names["t"] == ["cat", "dog"]


def test_a_class_without_readable_image_in_one_split_is_named(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "train/cat*6", "train/dog*6", "test/cat*3")
    (folder / "test/dog").mkdir()
    assert any("class 'dog' (test) has no readable image" in w for w in pool_of(folder).warnings)


def test_classes_around_the_splits_are_not_called_empty(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", *(f"{c}/{s}*6" for c in ("cat", "dog") for s in ("train", "test")))
    pool = pool_of(folder)
    assert pool.class_names["t"] == ["cat", "dog"] and not pool.warnings
    assert len(pool.indices("test")) == 12


def test_thumbnails_of_a_file_server_are_no_class(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "cat*6", "dog*6", *(f"@eaDir/{n}.png/THUMB.jpg" for n in range(6)))
    pool = pool_of(folder)
    assert pool.class_names["t"] == ["cat", "dog"] and len(pool) == 12
    assert any("6 @eaDir" in finding.text for finding in pool.findings)


def test_masks_inside_the_folder_are_not_beside_the_splits(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "train/cat*3", "test/cat*3")
    (folder / "masks").mkdir()
    for number in range(1, 7):
        mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
        Image.fromarray(mask).save(folder / f"masks/{number:03d}.png")
    pool = pool_of(folder, {"kind": "dense", "masks": "masks"})
    assert len(pool) == 6 and not [w for w in pool.warnings if "beside" in w]


def test_items_of_ordinary_folders_keep_identity_and_order(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", "b/2.png", "b/10.png", "a/1.png", "a.x/1.png")
    items = open_source(f"folder/{folder}", tmp_path).items()
    assert [item.identity for item in items] == ["a.x/1.png", "a/1.png", "b/10.png", "b/2.png"]
    assert [item.path for item in items] == [folder / item.identity for item in items]


def test_list_files_name_a_file_by_any_spelling(tmp_path: Path) -> None:
    folder = draw(tmp_path / "s", *(f"im/{n}.png" for n in range(6)))
    (folder / "l.csv").write_text("image,l\n" + "".join(f"./im/{n}.png,{n % 2}\n" for n in range(6)) + "im/0.png,0\n")
    (folder / "test.txt").write_text("im/0.png\n1\n")
    task = Task(source=f"csv/{folder}/l.csv", label="l", split="test.txt")
    listed = list_source(task.source, Data(root=str(tmp_path)), {"t": task}, found := Findings())
    held_out = [item.identity for item in listed.items if item.split == "test"]
    assert not found.all and sorted(held_out) == ["./im/0.png", "./im/1.png", "im/0.png"]

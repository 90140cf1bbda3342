"""One picture has one label of a task, however its file is linked and spelled; copies that disagree are told."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.assemble import check_labels, list_source
from vision_mtl.data.conflicts import disagreeing
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.targets import Target

NFC, NFD = "\u00f6", "o\u0308"


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of eight pictures."""
    for k, label in enumerate(("cat", "dog")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for n in range(8):
            picture(100 * k + n).save(tmp_path / "set" / label / f"{n}.png")
    return tmp_path / "set"


def pool_of(source: Path | str, unlabelled: list[str] | None = None, keep_going: bool = False, **task: object) -> Pool:
    options = task.pop("data", {})
    name = source if isinstance(source, str) else f"folder/{source}"
    root = Path(tempfile.gettempdir()) if isinstance(source, str) else source.parent
    data = Data(root=str(root / "root"), unlabelled=unlabelled, **options)
    return build_pool(data, {"t": Task(source=name, **task)}, image_size=(8, 8), findings=Findings(keep_going))


def rows(folder: Path, text: str) -> str:
    (folder / "l.csv").write_text(text, encoding="utf-8")
    return f"csv/{folder}/l.csv"


def listed(source: str, **task: object) -> list[str]:
    """Return the errors that listing and parsing the labels find."""
    found, tasks = Findings(keep_going=True), {"t": Task(source=source, **task)}
    check_labels(list_source(source, Data(), tasks, found), found)
    return [str(finding) for finding in found.of("error")]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_linked_into_two_classes_is_an_error_with_both_names_and_labels(pets: Path, link) -> None:
    link(pets / "cat/3.png", pets / "dog/also.png")
    with pytest.raises(UserError) as error:
        pool_of(pets)
    for words in ("task 't': 1 image is listed more than once", "'cat' as 'cat/3.png'", "'dog/also.png'"):
        assert words in str(error.value)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_linked_twice_into_its_class_is_one_instance(pets: Path, link) -> None:
    before = pool_of(pets)
    link(pets / "cat/3.png", pets / "cat/zz.png")
    after = pool_of(pets)
    assert len(after) == 16 and not after.warnings
    assert (after.split == before.split).all() and after.identities == before.identities


def test_links_keep_the_path_as_listed(pets: Path) -> None:
    (pets.parent / "views").mkdir()
    for label in ("cat", "dog"):
        for n in range(8):
            (pets.parent / f"views/{label}-{n}.png").symlink_to(pets / f"{label}/{n}.png")
    pool = pool_of(pets.parent / "views", label_from=r"views/(cat|dog)-\d")
    assert pool.class_names["t"] == ["cat", "dog"] and str(pool.paths[0]).endswith("views/cat-0.png")


def test_a_class_folder_that_links_to_another_is_an_error(pets: Path) -> None:
    (pets / "kitten").symlink_to("cat")
    with pytest.raises(UserError, match=r"8 images are listed more than once.*'cat' as .*'kitten' as .*kitten/0\.png"):
        pool_of(pets)
    assert len(pool_of(pets, label_from=r"/(\d)\.png$", data={"test_ratio": 0.1})) == 16


def test_one_folder_in_two_splits_is_an_error(pets: Path) -> None:
    (pets.parent / "s/train").mkdir(parents=True)
    (pets.parent / "s/test").mkdir()
    for split, labels in (("train", ("cat", "dog")), ("test", ("cat",))):
        for label in labels:
            (pets.parent / "s" / split / label).symlink_to(pets / label)
    with pytest.raises(UserError, match=r"8 images are .* in different splits: the same file is in 'test' as 'test/"):
        pool_of(pets.parent / "s")


@pytest.mark.parametrize("other", ["./cat/0.png", "cat/../cat/0.png", "dog/../cat/0.png", "{absolute}"])
def test_rows_of_one_file_in_another_spelling(pets: Path, other: str) -> None:
    other = other.format(absolute=pets / "cat/0.png")
    table = "image,l,v,tags\n" + "".join(f"cat/{n}.png,{n % 2},{n},{'x y' if n else 'y x'}\n" for n in range(8))
    assert listed(rows(pets, f"{table}{other},0,0.0,x y\n"), label="l") == []
    assert listed(rows(pets, f"{table}{other},0,0.0,x y\n"), label="v", kind="regression") == []
    assert listed(rows(pets, f"{table}{other},0,0.0,x y\n"), label="tags", kind="multi_label") == []
    source = rows(pets, f"{table}{other},1,0.5,x\n")
    (error,) = listed(source, label="l")
    assert "'0' as " in error and "'1' as " in error and other in error and "cat/0.png" in error
    assert "0.0 as " in listed(source, label="v", kind="regression")[0]
    assert "'x y' as " in listed(source, label="tags", kind="multi_label")[0]


def test_rows_of_one_file_complete_each_other(pets: Path) -> None:
    table = "image,l,v\n" + "".join(f"cat/{n}.png,{n % 2},\n./cat/{n}.png,,{n}\n" for n in range(8))
    source = rows(pets, table)
    pool = build_pool(
        Data(root=str(pets.parent)),
        {"a": Task(source=source, label="l"), "b": Task(source=source, label="v", kind="regression")},
        image_size=(8, 8),
    )
    assert len(pool) == 8 and pool.targets["a"].labelled.all() and pool.targets["b"].labelled.all()


def test_names_in_two_unicode_forms_are_one_file_if_only_one_exists(pets: Path) -> None:
    (pets / "cat/0.png").rename(pets / f"cat/{NFD}.png")
    table = "image,l\n" + "".join(f"cat/{n}.png,{n % 2}\n" for n in range(1, 8))
    assert listed(rows(pets, f"{table}cat/{NFC}.png,0\n")) == []
    try:
        (error,) = listed(rows(pets, f"{table}cat/{NFC}.png,0\ncat/{NFD}.png,1\n"))
    except UserError as raised:  # both rows are given one spelling, and the lines are named
        assert "line 9" in str(raised)
    else:
        assert ascii(f"cat/{NFC}.png") in error and ascii(f"cat/{NFD}.png") in error  # they look alike


def test_one_file_in_two_groups_is_an_error(pets: Path) -> None:
    table = "image,l,who\n" + "".join(f"cat/{n}.png,{n % 2},ann\n" for n in range(8))
    (error,) = listed(rows(pets, f"{table}./cat/0.png,0,bob\n"), label="l", group="who")
    assert "in different groups" in error and "'ann'" in error and "'bob'" in error


def test_masks_are_labels_too(pets: Path) -> None:
    masks = pets.parent / "masks"
    masks.mkdir()
    for n in range(8):
        Image.fromarray((np.arange(64).reshape(8, 8) % 2 + n % 2).astype(np.uint8)).save(masks / f"{n}.png")
    shutil.rmtree(pets / "dog")
    (pets / "cat/link.png").symlink_to("0.png")
    shutil.copy(masks / "0.png", masks / "link.png")
    assert len(pool_of(pets, kind="dense", masks=str(masks))) == 8
    shutil.copy(masks / "1.png", masks / "link.png")
    with pytest.raises(UserError, match=r"1 image is listed .*one mask as .*cat/0\.png' and one mask as .*link\.png"):
        pool_of(pets, kind="dense", masks=str(masks))
    pool = pool_of(pets, keep_going=True, kind="dense", masks=str(masks))
    assert not pool.targets["t"].labelled[0]  # it has no label, rather than the last one


@pytest.mark.parametrize("mode", ["warn", "error", "drop"])
def test_copies_in_two_classes(pets: Path, mode: str) -> None:
    shutil.copy(pets / "cat/3.png", pets / "dog/copy.png")
    shutil.copy(pets / "cat/3.png", pets / "cat/copy.png")
    words = "task 't': 3 images have a copy"
    if mode == "error":
        with pytest.raises(UserError, match=rf"{words}.*cat/3\.png.*dog/copy\.png.*--data\.same_content drop"):
            pool_of(pets, data={"same_content": mode})
        return
    pool = pool_of(pets, data={"same_content": mode})
    (warning,) = [w for w in pool.warnings if words in w]
    assert "'cat' as 'cat/3.png'" in warning or "'cat' as 'cat/copy.png'" in warning
    assert "'dog' as 'dog/copy.png'" in warning and ("All 3 are left out" in warning) == (mode == "drop")
    assert len(pool) == 18 and pool.targets["t"].labelled.sum() == (15 if mode == "drop" else 18)


def test_copies_of_one_class_are_not_told(pets: Path) -> None:
    shutil.copy(pets / "cat/3.png", pets / "cat/copy.png")
    assert not pool_of(pets).warnings


def test_copies_are_not_joined_through_other_sources(pets: Path) -> None:
    shutil.copy(pets / "cat/3.png", pets / "dog/copy.png")
    for number, file in enumerate(("cat/3.png", "dog/copy.png")):
        (pets.parent / f"u{number}").mkdir()
        (pets.parent / f"u{number}" / "a.png").symlink_to(pets / file)
    pool = pool_of(pets, [f"images/{pets.parent}/u0", f"images/{pets.parent}/u1"])
    assert len(pool) == 17 and pool.targets["t"].labelled.all()
    assert any("2 images have a copy" in warning for warning in pool.warnings)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("single_label", "same", "every training label is 'same'"),
        ("regression", "5", "every training label is 5.0"),
        ("multi_label", "a b", "every training label is 'a b'"),
    ],
)
def test_a_single_value_is_nothing_to_learn(pets: Path, kind: str, text: str, words: str) -> None:
    source = rows(pets, "image,l\n" + "".join(f"cat/{n}.png,{text}\n" for n in range(8)))
    with pytest.raises(UserError, match=f"task 't': {words}. A single value is nothing to learn"):
        build_pool(Data(root=str(pets.parent)), {"t": Task(source=source, kind=kind)}, image_size=(8, 8))


def test_a_single_value_in_the_training_split_is_nothing_to_learn(pets: Path) -> None:
    lines = [
        f"{c}/{n}.png,{n if c == 'dog' else 5},{'test' if c == 'dog' else 'train'}"
        for c in ("cat", "dog")
        for n in range(8)
    ]
    source = rows(pets, "image,l,s\n" + "\n".join(lines))
    task = Task(source=source, kind="regression", label="l", split="s")
    with pytest.raises(UserError, match=r"every training label is 5\.0"):
        build_pool(Data(root=str(pets.parent)), {"t": task}, image_size=(8, 8))


def test_one_mask_class_is_nothing_to_learn(pets: Path) -> None:
    (pets.parent / "masks").mkdir()
    for n in range(8):
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(pets.parent / f"masks/{n}.png")
    shutil.rmtree(pets / "dog")
    with pytest.raises(UserError, match=r"every pixel with a class in the training masks is '7'"):
        pool_of(pets, kind="dense", masks=str(pets.parent / "masks"))


def test_a_class_only_in_validation_is_named(pets: Path) -> None:
    lines = [
        f"{c}/{n}.png,{c if n else 'owl'},{'val' if n == 0 else 'train' if n < 6 else 'test'}"
        for c in ("cat", "dog")
        for n in range(8)
    ]
    source = rows(pets, "image,l,s\n" + "\n".join(lines))
    pool = build_pool(Data(root=str(pets.parent)), {"t": Task(source=source, label="l", split="s")}, image_size=(8, 8))
    assert any(
        "1 of 3 classes are in the validation images and not in the training ones: owl" in w for w in pool.warnings
    )


def test_disagreeing_pairs_by_hand() -> None:
    target = Target("single_label", ["a", "b"], np.array([0, 1, -1, 1, 0, 1]))
    assert disagreeing(target, np.array([7, 7, 7, 3, 3, 5])).tolist() == [[3, 4], [0, 1]]
    assert disagreeing(target, np.arange(6)).tolist() == []
    numbers = Target("regression", [], np.array([1.0, np.nan, 1.0, 2.0]))
    assert disagreeing(numbers, np.zeros(4, int)).tolist() == [[0, 3]]


CLASSES = ("a", "b", "c")
action = st.tuples(
    st.sampled_from(["symlink", "hard link", "folder link", "upward link", "relative link"]),
    st.sampled_from(CLASSES),
    st.sampled_from(CLASSES),
    st.integers(0, 2),
)
spelling = st.sampled_from(
    ["{c}/{n}.png", "./{c}/{n}.png", "{c}/../{c}/{n}.png", "a/../{c}/{n}.png", "{root}/{c}/{n}.png"]
)


def filed(folder: Path, above: tuple[str, ...]) -> set[tuple[int, int]]:
    """Return the identities of all files that lie in a folder, by plain recursion; links to folders above end it."""
    found: set[tuple[int, int]] = set()
    for entry in folder.iterdir():
        real = os.path.realpath(entry)
        if not entry.is_dir():
            found.add((entry.stat().st_dev, entry.stat().st_ino))
        elif not any(place == real or place.startswith(real + "/") for place in above):
            found |= filed(entry, (*above, real))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    actions=st.lists(action, max_size=5),
    spelled=st.lists(
        st.tuples(spelling, st.sampled_from(CLASSES), st.integers(0, 2), st.sampled_from("xy")), max_size=6
    ),
)
def test_no_picture_ends_with_two_labels(actions: list, spelled: list) -> None:
    """However files are linked and spelled: a picture under two labels is an error, and only then is there one."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(os.path.realpath(name)) / "set"
        for label in CLASSES:
            (root / label).mkdir(parents=True)
            for n in range(3):
                (root / label / f"{n}.png").write_bytes(f"{label}{n}".encode())
        for number, (what, place, other, n) in enumerate(actions):
            new, old = root / place / f"new{number}.png", root / other / f"{n}.png"
            if what == "symlink":
                new.symlink_to(old)
            elif what == "relative link":
                new.symlink_to(f"../{other}/{n}.png")
            elif what == "hard link":
                os.link(old, new)
            elif what == "folder link":
                new.with_suffix("").symlink_to(root / other)
            else:
                new.with_suffix("").symlink_to(["..", "../..", "."][n])
        holds = {label: filed(root / label, (str(root / label),)) for label in CLASSES}
        twice = any(holds[p] & holds[q] for p in CLASSES for q in CLASSES if p < q)
        errors = listed(f"folder/{root}")
        assert bool([e for e in errors if "listed more than once" in e]) == twice, (errors, actions)

        lines = [f"{form.format(c=c, n=n, root=root)},{label}" for form, c, n, label in spelled]
        lines += [f"{c}/{n}.png,{'xy'[n % 2]}" for c in CLASSES for n in range(3)]
        labels: dict[tuple[int, int], set[str]] = {}
        for line in lines:
            path, _, label = line.rpartition(",")
            status = (root / path).stat()
            labels.setdefault((status.st_dev, status.st_ino), set()).add(label)
        twice = any(len(found) > 1 for found in labels.values())
        try:
            told = any("listed more than once" in e for e in listed(rows(root, "image,l\n" + "\n".join(lines) + "\n")))
        except UserError as error:  # one spelling in two rows: told by line
            told = "line" in str(error)
        assert told == twice

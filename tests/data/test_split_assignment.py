"""Several tasks on the same images: one split for all tasks, overlapping labels, masks, classes missing in train."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.source import Item
from vision_mtl.data.split_assignment import label_columns

SHARED = Path(__file__).parents[2].parent / "shared/data"
CARS, PETS = SHARED / "stanford_cars_body8", SHARED / "oxford_pets3"
PET_NAME = r"([A-Za-z_]+)_\d+\.jpg$"


def pool_of(root: Path, tasks: dict[str, Task], unlabelled: list[str] | None = None, **options: object) -> Pool:
    size = options.pop("image_size", (16, 16))
    return build_pool(Data(unlabelled=unlabelled, root=str(root), **options), tasks, image_size=size)


def write_csv(folder: Path, rows: list[str]) -> str:
    file = folder / "labels.csv"
    file.write_text("\n".join(["file,a,b,c", *rows]) + "\n")
    return f"csv/{file}"


def file_name(number: int) -> str:
    return f"{'cats' if number < 12 else 'dögs'}/image {number:02d}.png"


def test_labels_overlap_as_the_columns_say(photo_folder: Path, tmp_path: Path) -> None:
    rows = [
        f"{file_name(i)},{'xy'[i % 2] if i < 16 else ''},{i / 2 if i >= 8 else ''},{'u v' if i % 3 else 'u'}"
        for i in range(24)
    ]
    source = write_csv(photo_folder, rows)
    tasks = {
        "letter": Task(source=source, label="a"),
        "size": Task(source=source, label="b", kind="regression"),
        "marks": Task(source=source, label="c", kind="multi_label"),
    }
    pool = pool_of(tmp_path, tasks, test_ratio=0.5)
    letter, size = pool.targets["letter"].labelled, pool.targets["size"].labelled
    assert (letter.sum(), size.sum(), (letter & size).sum()) == (16, 16, 8)
    assert pool.targets["size"].values[[8, 23]].tolist() == [4.0, 11.5]
    assert list(pool.labels) == ["letter"] and pool.class_names["marks"] == ["u", "v"]
    for task, labelled in (("letter", letter), ("size", size)):
        splits = [pool.indices(split, task=task) for split in ("train", "val", "test")]
        assert torch.cat(splits).sort().values.tolist() == np.flatnonzero(labelled).tolist()
    kinds = {task: row["kind"] for task, row in pool.summary()["tasks"].items()}
    assert kinds == {"letter": "single_label", "size": "regression", "marks": "multi_label"}


def test_a_blank_column_and_a_label_that_is_not_a_number_are_named(photo_folder: Path, tmp_path: Path) -> None:
    source = write_csv(photo_folder, [f"{file_name(i)},{'tall' if i == 5 else i},," for i in range(24)])
    with pytest.raises(UserError, match=r"label column of task 't' 'b'.* blank in every row"):
        pool_of(tmp_path, {"t": Task(source=source, label="b")})
    with pytest.raises(UserError, match=r"task 't': a label .*must be .*found 'tall' of 'cats/image 05\.png'"):
        pool_of(tmp_path, {"t": Task(source=source, label="a", kind="regression")})


def test_a_drawn_split_has_every_class_in_train(photo_folder: Path, tmp_path: Path) -> None:
    source = write_csv(photo_folder, [f"{file_name(i)},class {i // 2},{i % 2}," for i in range(24)])
    tasks = {"fine": Task(source=source, label="a"), "coarse": Task(source=source, label="b")}
    for seed in range(5):
        pool = pool_of(tmp_path, tasks, split_seed=seed, test_ratio=0.4)
        trained_on = pool.targets["fine"].values[pool.indices("train", task="fine")]
        assert len(set(trained_on.tolist())) == 12 and len(pool.indices("test")) > 0


def test_a_class_only_in_the_official_test_split_is_an_error(photo_folder: Path, tmp_path: Path) -> None:
    rows = [f"{file_name(i)},{'test' if i % 3 == 0 else 'train'},{'rare' if i in (3, 9) else 'x'}," for i in range(24)]
    source = write_csv(photo_folder, rows)
    with pytest.raises(UserError, match=r"task 't': 1 of 2 classes are in the test .*training ones: rare\."):
        pool_of(tmp_path, {"t": Task(source=source, label="b", split="a")})


def test_an_official_split_takes_precedence_over_a_draw_of_another_source(photo_folder: Path, tmp_path: Path) -> None:
    source = write_csv(
        photo_folder, [f"{file_name(i)},{'test' if i % 4 == 0 else 'train'},{i % 2}," for i in range(24)]
    )
    pool = pool_of(
        tmp_path, {"t": Task(source=source, label="b", split="a")}, [f"images/{photo_folder}"], test_ratio=0.6
    )
    test = {pool.identities[i].rpartition("/")[2] for i in pool.indices("test")}
    assert test == {f"image {i:02d}.png" for i in range(0, 24, 4)}


def test_tasks_on_one_source_must_agree_on_splits_and_groups(photo_folder: Path, tmp_path: Path) -> None:
    rows = [f"{file_name(i)},{'test' if i % 4 == 0 else 'train'},{i % 2},{'test' if i == 7 else ''}" for i in range(24)]
    source = write_csv(photo_folder, rows)
    first = Task(source=source, label="b", split="a")
    same = pool_of(tmp_path, {"t": first, "u": first, "v": Task(source=source, label="b")})
    assert len(same.indices("test", task="v")) == 6
    with pytest.raises(UserError, match=r"'cats/image 07\.png' of .* is in train by task 't' and in test by task 'u'"):
        pool_of(tmp_path, {"t": first, "u": Task(source=source, label="b", split="c")})
    with pytest.raises(UserError, match="must agree on one group column"):
        groups = {name: Task(source=source, label="b", group=name) for name in ("a", "c")}
        pool_of(tmp_path, groups)


def save_masks(folder: Path, numbers: range) -> None:
    folder.mkdir()
    for number in numbers:
        mask = np.full((40, 60), number % 2, np.uint8)
        mask[:20] = 2
        Image.fromarray(mask).save(folder / f"image {number:02d}.png")


def test_masks_and_classes_of_the_same_images(photo_folder: Path, tmp_path: Path) -> None:
    save_masks(photo_folder / "masks", range(4, 24))
    source = f"folder/{photo_folder}"
    tasks = {
        "kind": Task(source=source, label_from="/(cats|dögs)/"),
        "parts": Task(source=source, kind="dense", masks="masks"),
    }
    pool = pool_of(tmp_path, tasks, [f"images/{photo_folder}"], test_ratio=0.5)
    assert len(pool) == 24, "the masks are no images of either source"
    parts = pool.targets["parts"]
    assert parts.class_names == ["0", "1", "2"] and parts.labelled.sum() == 20
    number = next(i for i, identity in enumerate(pool.identities) if identity.endswith("image 05.png"))
    (mask,) = parts.gather(torch.tensor([number]))
    assert mask[:8].unique().tolist() == [2] and mask[8:].unique().tolist() == [1]
    with pytest.raises(UserError, match="is the folder of the images"):
        pool_of(tmp_path, {"parts": Task(source=source, kind="dense", masks=str(photo_folder))})


def test_a_column_may_name_mask_files(photo_folder: Path, tmp_path: Path) -> None:
    save_masks(photo_folder / "masks", range(24))
    rows = [f"{file_name(i)},{f'masks/image {i:02d}.png' if i > 2 else ''},{i % 2}," for i in range(24)]
    source = write_csv(photo_folder, rows)
    pool = pool_of(tmp_path, {"parts": Task(source=source, kind="dense", label="a")}, test_ratio=0.5)
    assert pool.targets["parts"].labelled.sum() == 21
    write_csv(photo_folder, [f"{file_name(i)},masks/lost.png,," for i in range(24)])
    with pytest.raises(UserError, match=r"task 'parts': 24 masks .*the mask '.*masks/lost\.png' of .*does not exist"):
        pool_of(tmp_path, {"parts": Task(source=source, kind="dense", label="a")})


@pytest.mark.skipif(not CARS.is_dir(), reason="the shared photographs are not there")
def test_cars_with_body_and_model(tmp_path: Path) -> None:
    source = f"csv/{CARS}/labels.csv"
    tasks = {name: Task(source=source, label=name) for name in ("body_type", "stanford_class_name")}
    pool = pool_of(tmp_path, tasks)
    body, model = (pool.targets[name] for name in tasks)
    assert len(pool) == 1600 and body.labelled.all() and model.labelled.all()
    assert (body.num_outputs, model.num_outputs) == (8, 180)
    trained_on = model.values[pool.indices("train")]
    assert len(np.unique(trained_on)) == 180
    assert 0.15 < len(pool.indices("test")) / 1600 < 0.25


@pytest.mark.skipif(not PETS.is_dir(), reason="the shared photographs are not there")
@pytest.mark.parametrize(
    ("folder", "split"), [("images", "../trainval.txt,../test.txt"), (".", "trainval.txt,test.txt")]
)
def test_pets_with_breed_and_trimap(folder: str, split: str, tmp_path: Path) -> None:
    source = f"folder/{PETS / folder}"
    tasks = {
        "breed": Task(source=source, label_from=PET_NAME, split=split),
        "trimap": Task(source=source, kind="dense", masks=str(PETS / "trimaps")),
    }
    pool = pool_of(tmp_path, tasks, image_size=(32, 32))
    assert len(pool) == 600
    assert pool.class_names == {"breed": ["Abyssinian", "Bengal", "american_bulldog"], "trimap": ["1", "2", "3"]}
    assert all(target.labelled.all() for target in pool.targets.values())
    assert len(pool.indices("test", task="trimap")) == len(pool.indices("test", task="breed")) == 298


def test_splits_do_not_depend_on_the_tasks(photo_folder: Path, tmp_path: Path) -> None:
    """So a task may be added to a model, and arms of a study with different tasks are tested on the same images."""
    rows = [f"{file_name(i)},{'xyz'[i % 3]},{i % 2 if i > 6 else ''},{i / 7}" for i in range(24)]
    source = write_csv(photo_folder, rows)
    tasks = {name: Task(source=source, label=name) for name in "ab"}
    tasks["c"] = Task(source=source, label="c", kind="regression")
    pools = [pool_of(tmp_path, {name: tasks[name] for name in names}) for names in ("abc", "a", "b", "c", "cb")]
    pools.append(pool_of(tmp_path, {}, [source]))
    assert len({tuple(pool.split.tolist()) for pool in pools}) == 1


def test_label_columns_are_those_whose_values_are_classes() -> None:
    items = [Item(str(i), labels={"sex": "fm"[i % 2], "name": f"person {i}"}) for i in range(8)]
    items.append(Item("8", labels={"name": "person 8"}))
    ((rows, numbers),) = label_columns(items, np.arange(9) + 3)
    assert rows.tolist() == list(range(3, 11)) and numbers.tolist() == [0, 1] * 4

"""Mask files: grey values and palette indices, resized to the pool's size without new classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.masks import masks_in_folder, read_masks
from vision_mtl.data.options import Task
from vision_mtl.data.source import Item
from vision_mtl.data.store import Settings
from vision_mtl.data.targets import Target

SQUARE = np.array([[0, 0, 3, 3], [0, 0, 3, 3], [9, 9, 255, 255], [9, 9, 255, 255]], np.uint8)


def item(folder: Path, name: str = "a.jpg", height: int = 40, width: int = 40, **options: object) -> Item:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path, **options)
    return Item(name, path=path)


def read(items: list[Item], files: list[Path | None], size: tuple[int, int] = (4, 4), **options: object) -> Target:
    fit = options.pop("fit", "stretch")
    task = Task(source="folder/x", kind="dense", masks="masks", **options)
    return read_masks("seg", task, items, files, Settings(size, 3, fit), num_workers=2)


def save(folder: Path, mask: np.ndarray | Image.Image, name: str = "mask.png", **options: object) -> Path:
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(folder / name, **options)
    return folder / name


def palette() -> Image.Image:
    image = Image.fromarray(SQUARE, "P")
    image.putpalette([(37 * i) % 256 for i in range(768)])
    return image


@pytest.mark.parametrize("form", ["grey", "palette", "sixteen bits"])
def test_the_files_own_numbers_are_the_classes(form: str, tmp_path: Path) -> None:
    made = {"grey": SQUARE, "palette": palette(), "sixteen bits": SQUARE.astype(np.uint16)}[form]
    target = read([item(tmp_path)], [save(tmp_path, made)])
    assert target.class_names == ["0", "3", "9"]
    assert target.masks.tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]]]


def test_one_bit_masks(tmp_path: Path) -> None:
    target = read([item(tmp_path)], [save(tmp_path, Image.fromarray(np.eye(4, dtype=bool)))])
    assert target.class_names == ["0", "1"] and target.masks[0].tolist() == np.eye(4).tolist()


def test_what_is_ignored_is_an_option(tmp_path: Path) -> None:
    file, image = save(tmp_path, SQUARE), item(tmp_path)
    assert read([image], [file], ignore=None).class_names == ["0", "3", "9", "255"]
    other = read([image], [file], ignore=0)
    assert other.class_names == ["3", "9", "255"] and (other.masks == 255).sum() == 4


def test_classes_come_from_all_masks_and_items_without_one_have_no_label(tmp_path: Path) -> None:
    files = [save(tmp_path, np.full((4, 4), value, np.uint8), f"{value}.png") for value in (20, 255, 100, 3)]
    items = [item(tmp_path, f"{n}.jpg") for n in range(5)]
    target = read(items, [*files[:2], None, *files[2:]])
    assert target.class_names == ["3", "20", "100"]
    assert target.labelled.tolist() == [True, False, False, True, True]  # the second has only ignored pixels
    assert [int(target.masks[row, 0, 0]) for row in target.values[[0, 3, 4]]] == [1, 2, 0]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_masks_follow_their_images(fit: str, tmp_path: Path) -> None:
    from vision_mtl.data.resize import resize

    random = np.random.default_rng(0)
    cells = random.integers(0, 2, (6, 9), np.uint8) * 7
    picture = np.kron(cells, np.full((10, 10), 30, np.uint8))[..., None]
    file = save(tmp_path, np.kron(cells, np.ones((10, 10), np.uint8)))
    target = read([item(tmp_path, height=60, width=90)], [file], (30, 30), fit=fit)
    image = resize(picture, (30, 30), fit)[..., 0]
    inside = target.masks[0] != 255
    assert inside.all() == (fit != "pad")
    sure = inside & ((image == 0) | (image == 210))  # other pixels contain two cells
    assert sure.mean() > 0.4
    assert np.array_equal(target.masks[0][sure] == 1, image[sure] == 210)


def test_another_resolution_is_resized_and_another_aspect_ratio_refused(tmp_path: Path) -> None:
    wide = item(tmp_path, height=101, width=151)
    assert read([wide], [save(tmp_path, np.zeros((51, 76), np.uint8))]).class_names == ["0"]
    file = save(tmp_path, np.zeros((151, 101), np.uint8))
    with pytest.raises(UserError, match=r"task 'seg': the mask '.*mask\.png' has 151 x 101 .*'a\.jpg' has 101 x 151"):
        read([wide], [file])


def test_masks_match_the_oriented_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = item(tmp_path, height=20, width=60, exif=exif)
    assert read([turned], [save(tmp_path, np.zeros((60, 20), np.uint8))]).labelled.all()
    with pytest.raises(UserError, match="another aspect ratio"):
        read([turned], [save(tmp_path, np.zeros((20, 60), np.uint8))])


def test_files_that_are_not_masks_are_named(tmp_path: Path) -> None:
    image = item(tmp_path)
    colour = save(tmp_path, Image.new("RGB", (4, 4)), "colour.png")
    lossy = save(tmp_path, SQUARE, "lossy.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    photo = save(tmp_path, np.arange(65536, dtype=np.uint16).reshape(256, 256), "photo.png")
    nothing = save(tmp_path, np.full((4, 4), 255, np.uint8), "nothing.png")
    for file, words in (
        (colour, r"colour\.png' must be a grey or palette image.*found PNG, RGB"),
        (lossy, r"lossy\.jpg' must be .*found JPEG, which changes values"),
        (tmp_path / "broken.png", r"broken\.png' of 'a\.jpg': it cannot be read"),
        (tmp_path / "lost.png", r"lost\.png' of 'a\.jpg': there is no such file"),
        (nothing, "1 masks contain only the ignored value 255"),
    ):
        with pytest.raises(UserError, match=words):
            read([image], [file])
    with pytest.raises(UserError, match=r"photo\.png contain more than 254 values"):
        read([image], [photo], (32, 32))


def test_masks_are_found_by_path_then_by_stem(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    for name in ("cats/1.png", "dogs/1.png", "7.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder, SQUARE, name)
    items = [Item("cats/1.jpg"), Item("dogs/1.jpg"), Item("birds/7.jpg"), Item("birds/8.jpg")]
    found = masks_in_folder("seg", folder, items)
    assert found == [folder / "cats/1.png", folder / "dogs/1.png", folder / "7.png", None]
    for items, words in (
        ([Item("1.jpg")], r"'1\.jpg' has 2 masks"),
        ([Item("a/7.jpg"), Item("b/7.jpg")], r"7\.png is the mask of 'a/7\.jpg' and 'b/7\.jpg'"),
        ([Item("x.jpg")], "none of the 3 masks in"),
    ):
        with pytest.raises(UserError, match=words):
            masks_in_folder("seg", folder, items)
    with pytest.raises(UserError, match=r"task 'seg', masks: there is no"):
        masks_in_folder("seg", tmp_path / "mask", [Item("x.jpg")])

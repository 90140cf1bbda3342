"""Mask files: grey values and palette indices, resized to the pool's size without new classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.findings import Findings
from vision_mtl.data.mask_files import MaskPlace, find_mask, mask_place, match_masks
from vision_mtl.data.masks import read_masks
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
    fit, findings = options.pop("fit", "stretch"), options.pop("findings", None) or Findings()
    task = Task(source="folder/x", kind="dense", masks="masks", **options)
    target = read_masks("seg", task, items, files, Settings(size, 3, fit), findings, num_workers=2)
    findings.raise_errors()
    return target


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
    words = r"task 'seg': the mask '.*mask\.png' has 151 x 101 .*'a\.jpg' has 101 x 151: one of them is turned and"
    with pytest.raises(UserError, match=words):
        read([wide], [file])


def test_masks_match_the_oriented_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = item(tmp_path, height=20, width=60, exif=exif)
    assert read([turned], [save(tmp_path, np.zeros((60, 20), np.uint8))]).labelled.all()
    with pytest.raises(UserError, match="one of them is turned by its EXIF orientation and the other is not"):
        read([turned], [save(tmp_path, np.zeros((20, 60), np.uint8))])
    with pytest.raises(UserError, match="another aspect ratio"):
        read([turned], [save(tmp_path, np.zeros((50, 60), np.uint8))])


def test_files_that_are_not_masks_are_named(tmp_path: Path) -> None:
    image = item(tmp_path)
    colour = save(tmp_path, Image.new("CMYK", (4, 4)), "colour.tif")
    lossy = save(tmp_path, SQUARE, "lossy.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    photo = save(tmp_path, np.arange(65536, dtype=np.uint16).reshape(256, 256), "photo.png")
    for file, words in (
        (colour, r"colour\.tif' of 'a\.jpg' is a TIFF image of mode CMYK: save it in grey"),
        (lossy, r"lossy\.jpg' of 'a\.jpg' is compressed as JPEG, which changes values"),
        (tmp_path / "broken.png", r"broken\.png' of 'a\.jpg' cannot be read"),
        (tmp_path / "lost.png", r"lost\.png' of 'a\.jpg' does not exist"),
        (photo, r"photo\.png' of 'a\.jpg' holds 65,536 values, more than 256: is it a photograph"),
    ):
        with pytest.raises(UserError, match=words):
            read([image], [file])
    with pytest.raises(UserError, match="1 masks contain only the ignored value 9"):
        read([image], [save(tmp_path, np.full((4, 4), 9, np.uint8), "nine.png")], ignore=9)
    with pytest.raises(UserError, match="contain more than 254 values"):
        read([image], [save(tmp_path, np.arange(256, dtype=np.uint8).reshape(16, 16), "all.png")], (16, 16), ignore=0)


def named(folder: Path, *names: str) -> MaskPlace:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder, SQUARE, name)
    return MaskPlace(folder)


def matched(place: MaskPlace, *images: str) -> tuple[list[str | None], dict[str, int], Findings]:
    findings = Findings()
    found, counts = match_masks("seg", place, [Item(image) for image in images], findings)
    return [None if file is None else file.relative_to(place.folder).as_posix() for file in found], counts, findings


def test_masks_are_found_by_path_then_by_stem(tmp_path: Path) -> None:
    place = named(tmp_path / "masks", "cats/1.png", "dogs/1.png", "7.png")
    found, counts, findings = matched(place, "cats/1.jpg", "dogs/1.jpg", "birds/7.jpg", "birds/8.jpg")
    assert found == ["cats/1.png", "dogs/1.png", "7.png", None]
    assert counts == {"unmatched_masks": 0, "images_without_mask": 1}
    (note,) = findings.all
    assert note.severity == "note" and "1 of 4 images have no mask, hence no label: birds/8.jpg" in note.text
    for images, words in (
        (["1.jpg"], r"'1\.jpg' has 2 masks"),
        (["a/7.jpg", "b/7.jpg"], r"7\.png is the mask of 'a/7\.jpg' and 'b/7\.jpg'"),
        (["x.jpg"], r"none of the 3 masks in .* has the name of an image \(7\.png, cats/1\.png"),
    ):
        with pytest.raises(UserError, match=words):
            matched(place, *images)[2].raise_errors()
    with pytest.raises(UserError, match=r"task 'seg', masks: there is no"):
        matched(MaskPlace(tmp_path / "mask"), "x.jpg")


COMPOSED, APART = "\u00e9", "e\u0301"  # two ways to store one letter


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        (f"{COMPOSED}.png", f"{APART}.jpg"),
        (f"a/{APART}.png", f"a/{COMPOSED}.jpg"),
        ("x.jpg.png", "x.jpg"),
        ("a/x.jpg.png", "a/x.jpg"),
        ("x.jpg.png", "b/x.jpg"),
        ("img_1.png", "IMG_1.JPG"),
        ("v1.5 x.png", "v1.5 x.jpg"),
    ],
)
def test_other_spellings_of_a_name_match(mask: str, image: str, tmp_path: Path) -> None:
    found, counts, findings = matched(named(tmp_path, mask), image)
    assert found == [mask] and not findings.all and counts["unmatched_masks"] == 0


def test_the_same_name_twice_is_ambiguous(tmp_path: Path) -> None:
    for number, names in enumerate([("x.png", "x.tif"), (f"{COMPOSED}.png", f"{APART}.png")]):
        image = "x.jpg" if number == 0 else f"{APART}.jpg"
        with pytest.raises(UserError, match=r"has 2 masks, .* and .*Keep one mask for each image"):
            matched(named(tmp_path / str(number), *names), image)[2].raise_errors()
    found = matched(named(tmp_path / "case", "A.png", "a.png"), "a.jpg", "A.jpg")[0]
    assert found == ["a.png", "A.png"]


def test_unmatched_masks_are_counted_and_a_common_ending_is_suggested(tmp_path: Path) -> None:
    place = named(tmp_path, "1.png", *[f"{n}_mask.png" for n in range(2, 10)])
    images = [f"{n}.jpg" for n in range(1, 10)]
    found, counts, findings = matched(place, *images)
    assert found == ["1.png", *[None] * 8] and counts == {"unmatched_masks": 8, "images_without_mask": 8}
    unmatched, missing = findings.all
    assert unmatched.severity == missing.severity == "warning" and unmatched.images == missing.images == 8
    assert "8 masks belong to no image and are not used: 2_mask.png, 3_mask.png, 4_mask.png," in unmatched.text
    assert f"8 masks would match --tasks.seg.masks '{tmp_path}/*_mask.png'" in unmatched.advice
    with pytest.raises(
        UserError, match=r"none of the 9 masks .*8 masks would match --tasks\.seg\.masks '.*\*_mask\.png'"
    ):
        matched(place, *[f"{n}.jpg" for n in range(2, 10)])
    stranger = matched(named(tmp_path / "b", "1.png", "cat.png"), "1.jpg")[2].all
    assert [f.text for f in stranger] == ["task 'seg': 1 masks belong to no image and are not used: cat.png."]


@pytest.mark.parametrize("pattern", ["*_mask.png", "*_mask"])
def test_a_pattern_names_the_masks_even_beside_their_images(pattern: str, tmp_path: Path) -> None:
    named(tmp_path, "1_mask.png", "2_mask.png", "1.png", "2.png")
    place = mask_place(str(tmp_path / pattern), tmp_path)
    found, counts, findings = matched(place, "1.png", "2.png")
    assert found == ["1_mask.png", "2_mask.png"] and not findings.all and counts["unmatched_masks"] == 0
    assert [place.holds(tmp_path / name) for name in ("1.png", "1_mask.png")] == [False, True]
    assert mask_place("mask_*", tmp_path).inner("mask_7.tif") == "7"
    with pytest.raises(UserError, match=r"none of the 4 files in .* is named as '.*\*\.tif'"):
        matched(mask_place(str(tmp_path / "*.tif"), tmp_path), "1.png")
    with pytest.raises(UserError, match="may have one"):
        mask_place("a*b*", tmp_path)


def test_a_cell_finds_its_mask_in_another_unicode_form(tmp_path: Path) -> None:
    file = save(tmp_path, SQUARE, f"{APART}.png")
    assert find_mask(tmp_path, f"{COMPOSED}.png") == file
    assert find_mask(tmp_path, "no.png") == tmp_path / "no.png"


def test_a_pattern_that_matches_fewer_masks_is_not_suggested(tmp_path: Path) -> None:
    for folder, names in (("im", [f"{n}" for n in range(9)]), ("masks", [*map(str, range(6)), "6_mask", "7_mask"])):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    items = [Item(f"{n}.png", tmp_path / "im" / f"{n}.png") for n in range(9)]
    findings = Findings()
    match_masks("t", mask_place(str(tmp_path / "masks"), tmp_path), items, findings)
    assert "*_mask.png" not in "".join(map(str, findings.all)) and "2 masks belong to no image" in str(findings.all[0])

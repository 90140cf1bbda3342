"""`bundled/` and `rendered/`: stable and labelled, with crops that stay in their split."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.data.assemble import list_source
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data
from vision_mtl.data.rendering.faces import LOOKS
from vision_mtl.data.source import open_source
from vision_mtl.data.sources import bundled
from vision_mtl.data.split_assignment import split_numbers
from vision_mtl.data.split_files import write_splits

BY_REGION = (5904, "02c3d4c26877dbda")  # images of version 1, a hash of their splits and regions
COUNTS = {
    "bundled/digits": (5000, 10),
    "bundled/faces": (200, 2),
    "rendered/cars": (3200, 8),
    "rendered/faces": (3600, 12),
    "rendered/pets": (1800, 3),
}


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_counts_and_balanced_classes(name: str, counts: tuple[int, int]) -> None:
    found = open_source(name, Path()).items()
    labels, sizes = np.unique([item.labels["label"] for item in found], return_counts=True)
    assert (len(found), len(labels)) == counts
    assert len(set(sizes.tolist())) == 1


@pytest.mark.parametrize("name", ["bundled/digits", "bundled/faces", "bundled/photos", *list(COUNTS)[2:]])
def test_read_is_repeatable_and_independent_of_order(name: str) -> None:
    first, second = open_source(name, Path()), open_source(name, Path())
    items = first.items()
    some = [items[i] for i in (0, len(items) // 2, -1)]
    forwards = [first.read(item) for item in some]
    backwards = [second.read(item) for item in reversed(some)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] in (1, 3)
        assert np.array_equal(one, other)


def test_digits_are_mnist() -> None:
    source = open_source("bundled/digits", Path())
    ones = [source.read(item) for item in source.items() if item.labels["label"] == "1"][:50]
    assert ones[0].shape == (28, 28, 1)
    assert np.mean([image.mean() for image in ones]) < 30  # 1 is the thinnest digit


def test_regions_are_disjoint_and_cover_the_photograph() -> None:
    for name, photo in bundled._photographs().items():
        covered = np.zeros(photo.shape[:2], int)
        for top, left, height, width in bundled.regions(name):
            covered[top : top + height, left : left + width] += 1
        assert (covered == 1).all()


def test_whole_photographs_are_held_out() -> None:
    items = open_source("bundled/photos", Path()).items()
    photos: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for item in items:
        assert item.split is not None and item.group == item.identity.split("/")[0]
        photos[item.split].add(item.group)
    assert {split: len(names) for split, names in photos.items()} == {"train": 5, "val": 1, "test": 2}
    assert len(set().union(*photos.values())) == len(bundled._photographs()) == 8


def test_a_crop_stays_in_its_region() -> None:
    source = open_source("bundled/photos", Path())
    items = source.items()
    for item in items[:: len(items) // 60]:
        photo, region, _ = item.identity.split("/")
        top, left, height, width = bundled.regions(photo)[int(region)]
        crop, whole = source.read(item), bundled._photographs()[photo][top : top + height, left : left + width]
        windows = np.lib.stride_tricks.sliding_window_view(whole, crop.shape)[:, :, 0]
        assert any(np.array_equal(window, crop) for row in windows for window in row)


def test_runs_with_independent_splits_keep_the_regions_that_they_held_out(tmp_path: Path) -> None:
    source = bundled.Bundled("photos", Path())
    before = source.independent_items()
    text = "\n".join(f"{item.identity} {item.split} {item.group}" for item in before)
    assert (len(before), hashlib.blake2b(text.encode(), digest_size=8).hexdigest()) == BY_REGION
    for rule in ("independent", "proportional"):
        data = Data(unlabelled=["bundled/photos"], root=str(tmp_path), split_rule=rule)
        findings = Findings()
        listed = list_source("bundled/photos", data, {}, findings)
        assert len(listed.items) == len(before if rule == "independent" else source.items())
        assert [bundled.SPLIT_BY_REGION] * (rule == "independent") == [f.text for f in findings.of("warning")]


def test_a_file_of_splits_by_region_still_applies(tmp_path: Path) -> None:
    before = bundled.Bundled("photos", Path()).independent_items()
    names = [item.identity for item in before]
    write_splits(tmp_path / "splits.csv", {"bundled/photos": (names, split_numbers([item.split for item in before]))})
    data = Data(unlabelled=["bundled/photos"], root=str(tmp_path))
    kept = list_source("bundled/photos", data, {}, Findings(), tmp_path / "splits.csv").items
    splits = {item.identity: item.kept for item in kept}
    assert all(splits.pop(item.identity) == item.split for item in before)
    assert splits and set(splits.values()) == {None} and all(name.startswith("grace_hopper/") for name in splits)


def test_unknown_sets_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown bundled set 'digit'\. Did you mean 'digits'"):
        open_source("bundled/digit", Path())
    with pytest.raises(UserError, match=r"unknown rendered set 'car'\. Did you mean 'cars'"):
        open_source("rendered/car", Path())


@pytest.mark.parametrize("name", ["rendered/cars", "rendered/faces", "rendered/pets"])
def test_rendered_images_differ_and_use_the_range(name: str) -> None:
    source = open_source(name, Path())
    pictures = [source.read(item) for item in source.items()[::97]]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert all(picture.std() > 10 for picture in pictures)


def test_no_two_people_look_alike() -> None:
    assert len(set(LOOKS)) == len(LOOKS)

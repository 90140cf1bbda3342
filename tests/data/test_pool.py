"""The pool of several sources: instances, splits, clusters, labels, and error messages."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.resize import resize
from vision_mtl.discovery.folds import split_folds


def pool_of(root: Path, unlabelled: list[str] | None = None, size: tuple[int, int] = (16, 16), **tasks: object) -> Pool:
    options = tasks.pop("data", {})
    named = {name: task if isinstance(task, Task) else Task(source=task) for name, task in tasks.items()}
    return build_pool(Data(unlabelled=unlabelled, root=str(root), **options), named, image_size=size)


def number_of(pool: Pool, ending: str) -> int:
    (found,) = (i for i, identity in enumerate(pool.identities) if identity.endswith(ending))
    return found


def test_a_file_in_two_sources_is_one_image_with_two_labels(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "owners.csv").write_text(
        "file,owner\ncats/image 00.png,ann\ncats/image 01.png,bob\n"
        + "".join(f"dögs/image {i}.png,{'ann' if i % 2 else 'bob'}\n" for i in range(12, 24))
    )
    pool = pool_of(
        tmp_path, [f"images/{photo_folder}"], kind=f"folder/{photo_folder}", owner=f"csv/{photo_folder}/owners.csv"
    )
    assert len(pool) == 24
    first = number_of(pool, "cats/image 00.png")
    assert pool.member[first].all()
    assert pool.class_names == {"kind": ["cats", "dögs"], "owner": ["ann", "bob"]}
    assert pool.labels["owner"][first] == 0 and (pool.labels["owner"] >= 0).sum() == 14
    assert (pool.labels["kind"] >= 0).all()


def test_a_copy_in_another_tasks_folders_is_the_same_image(tmp_path: Path, picture) -> None:
    for number in range(24):
        for task, label in (("kind", "ab"[number % 2]), ("owner", ["ann", "bob", "cid"][number % 3])):
            file = tmp_path / task / label / f"{task} {number:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            if task == "kind" or number < 9:
                Image.fromarray(picture(number)).save(file)
    twice = tmp_path / "owner" / "ann" / "again.png"  # two copies in one source: ambiguous
    Image.fromarray(picture(3)).save(twice)
    pool = pool_of(tmp_path, kind=f"folder/{tmp_path}/kind", owner=f"folder/{tmp_path}/owner")
    assert len(pool) == 24 + 2
    both = (pool.labels["kind"] >= 0) & (pool.labels["owner"] >= 0)
    assert sorted(pool.identities[i].rpartition("kind ")[2] for i in np.flatnonzero(both)) == [
        f"{n:02d}.png" for n in range(9) if n != 3
    ]
    assert all(pool.labels["owner"][i] == int(pool.identities[i][-6:-4]) % 3 for i in np.flatnonzero(both))


def test_pixels_come_back_as_floats_of_the_right_image(photo_folder: Path, tmp_path: Path, picture) -> None:
    pool = pool_of(tmp_path, [f"images/{photo_folder}", "bundled/faces"], size=(40, 60))
    index = number_of(pool, "dögs/image 20.png")
    images = pool.gather(torch.tensor([index, 0, index]))
    assert images.shape == (3, 3, 40, 60) and images.dtype == torch.float32 and images.is_contiguous()
    expected = torch.from_numpy(picture(20).copy()).permute(2, 0, 1) / 255
    assert torch.equal(images[0], expected) and torch.equal(images[2], expected)


def test_numbers_are_classes_in_numeric_order(photo_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{'cats' if i < 12 else 'dögs'}/image {i:02d}.png,{(i % 3) * 5}\n" for i in range(24))
    (photo_folder / "n.csv").write_text("file,count\n" + rows)
    assert pool_of(tmp_path, None, n=f"csv/{photo_folder}/n.csv").class_names["n"] == ["0", "5", "10"]


def test_splits_do_not_depend_on_other_sources(photo_folder: Path, tmp_path: Path) -> None:
    alone = pool_of(tmp_path, [f"images/{photo_folder}"])
    together = pool_of(tmp_path, ["bundled/faces", f"images/{photo_folder}"])
    split = dict(zip(together.identities, together.split.tolist(), strict=True))
    assert [split[identity] for identity in alone.identities] == alone.split.tolist()


@pytest.mark.parametrize("kind", ["folder", "images", "csv"])
def test_a_moved_folder_keeps_its_splits_labels_and_folds(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows = "".join(f"{'cats' if i < 12 else 'dögs'}/image {i:02d}.png,{i % 2}\n" for i in range(24))
    (photo_folder / "n.csv").write_text("file,n\n" + rows)
    moved = tmp_path / "another disk" / photo_folder.name
    shutil.copytree(photo_folder, moved)
    monkeypatch.chdir(tmp_path)
    found = []
    for place in (photo_folder, moved, Path(photo_folder.name)):
        source = f"{kind}/{place}" + ("/n.csv" if kind == "csv" else "")
        pool = pool_of(tmp_path, [source])
        everything = torch.arange(len(pool))
        folds = [fold.tolist() for fold in split_folds(pool, everything, seed=1)]
        found.append((pool.split.tolist(), pool.draw_names(everything), folds))
    assert found[0] == found[1] == found[2] and set(found[0][0]) == {0, 1, 2}
    assert len(set(found[0][1])) == 24 and str(tmp_path) not in "".join(found[0][1])


def test_exact_duplicates_share_a_split_even_in_other_formats(photo_folder: Path, tmp_path: Path, picture) -> None:
    for number in range(24):
        Image.fromarray(picture(number)).save(photo_folder / f"copy {number:02d}.bmp")
    pool = pool_of(tmp_path, [f"images/{photo_folder}"])
    assert pool.details["exact_duplicates"] == 24
    for number in range(24):
        original = number_of(pool, f"image {number:02d}.png")
        copy = number_of(pool, f"copy {number:02d}.bmp")
        assert pool.split[original] == pool.split[copy] and pool.cluster[original] == pool.cluster[copy]


def test_exact_duplicates_in_two_official_splits_leave_training(photo_folder: Path, tmp_path: Path, picture) -> None:
    for split, numbers in (("train", range(10)), ("test", range(8, 14))):
        for number in numbers:
            file = tmp_path / "set" / split / "a" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number)).save(file)
    pool = pool_of(tmp_path, [f"folder/{tmp_path / 'set'}"])
    assert [pool.split[number_of(pool, f"train/a/{n}.png")] for n in (8, 9)] == [-1, -1]
    assert any("left out 2 images with an exact duplicate" in warning for warning in pool.warnings)
    assert len(pool.indices("test")) == 6


def test_near_duplicates_are_reported_and_kept_together_on_request(photo_folder: Path, tmp_path: Path, picture) -> None:
    for number in range(24):
        cv2.imwrite(
            str(photo_folder / f"near {number:02d}.jpg"), picture(number)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60]
        )
    pool = pool_of(tmp_path, [f"images/{photo_folder}"], size=(40, 60))
    assert pool.details["near_duplicates"] == 24
    (warning,) = (w for w in pool.warnings if "near duplicates are in different splits" in w)
    assert "--data.keep_near_duplicates_together" in warning
    kept = pool_of(tmp_path, [f"images/{photo_folder}"], size=(40, 60), data={"keep_near_duplicates_together": True})
    for number in range(24):
        pair = number_of(kept, f"image {number:02d}.png"), number_of(kept, f"near {number:02d}.jpg")
        assert kept.split[pair[0]] == kept.split[pair[1]]
    assert not any("near duplicates are in different splits" in w for w in kept.warnings)


def test_near_duplicates_are_found_across_sources(photo_folder: Path, tmp_path: Path, picture) -> None:
    """An unlabelled source contains the task's images, saved at another quality."""
    pile = tmp_path / "pile"
    pile.mkdir()
    for number in range(24):
        file = pile / f"scraped {number:02d}.jpg"
        cv2.imwrite(str(file), picture(number)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    pool = pool_of(tmp_path, [f"images/{pile}"], size=(40, 60), kind=f"folder/{photo_folder}")
    assert pool.details["near_duplicates"] == 24
    assert any("near duplicates are in different splits" in warning for warning in pool.warnings)
    together = {"keep_near_duplicates_together": True}
    kept = pool_of(tmp_path, [f"images/{pile}"], size=(40, 60), data=together, kind=f"folder/{photo_folder}")
    assert not any("near duplicates are in different splits" in warning for warning in kept.warnings)
    for number in range(24):
        pair = number_of(kept, f"image {number:02d}.png"), number_of(kept, f"scraped {number:02d}.jpg")
        assert kept.split[pair[0]] == kept.split[pair[1]]


def test_unlabelled_copies_of_test_images_are_reported_and_left_out(
    photo_folder: Path, tmp_path: Path, picture
) -> None:
    pile = tmp_path / "pile"
    pile.mkdir()
    for number in range(24):
        Image.fromarray(picture(number)).save(pile / f"scraped {number:02d}.bmp")
    pool = pool_of(tmp_path, [f"images/{pile}"], kind=f"folder/{photo_folder}")
    judged = {n for n in range(24) if pool.split[number_of(pool, f"scraped {n:02d}.bmp")] > 0}
    assert len(pool) == 24 and (pool.labels["kind"] >= 0).all()
    (warning,) = (w for w in pool.warnings if "are copies of test or validation images" in w)
    assert warning.startswith(f"{len(judged)} images of images/") and "kept out of training" in warning
    contents = {int(pool.content[number_of(pool, f"scraped {n:02d}.bmp")]) for n in judged}
    assert judged and contents.isdisjoint(pool.content[pool.indices("train").numpy()].tolist())


def test_the_same_folder_twice_is_not_a_copy(photo_folder: Path, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [f"images/{photo_folder}"], kind=f"folder/{photo_folder}")
    assert not any("are copies" in warning for warning in pool.warnings)


def test_a_label_that_counts_the_files_gives_a_warning(photo_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{'cats' if i < 12 else 'dögs'}/image {i:02d}.png,{i},{i * 7 % 5}\n" for i in range(24))
    (photo_folder / "g.csv").write_text("file,id,age\n" + rows)
    source = f"csv/{photo_folder}/g.csv"
    tasks = {label: Task(source=source, label=label, kind="regression") for label in ("id", "age")}
    (warning,) = (w for w in pool_of(tmp_path, **tasks).warnings if "its label" in w)
    assert warning.startswith("task 'id': its label only counts the files in order")


def test_groups_stay_together_and_are_clusters(photo_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{'cats' if i < 12 else 'dögs'}/image {i:02d}.png,{i % 2},p{i // 3}\n" for i in range(24))
    (photo_folder / "g.csv").write_text("file,label,person\n" + rows)
    pool = pool_of(tmp_path, None, t=Task(source=f"csv/{photo_folder}/g.csv", label="label", group="person"))
    for person in range(8):
        rows_of = [number_of(pool, f"image {i:02d}.png") for i in range(3 * person, 3 * person + 3)]
        assert len({pool.split[i] for i in rows_of}) == len({pool.cluster[i] for i in rows_of}) == 1
    assert len(np.unique(pool.cluster)) == 8


def test_labels_from_paths_and_a_split_from_a_list(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "my_test.csv").write_text("image\n" + "".join(f"image {i:02d}\n" for i in (0, 1, 12, 13)))
    task = Task(source=f"images/{photo_folder}", label_from=r"/(cats|dögs)/", split="my_test.csv")
    pool = pool_of(tmp_path, None, kind=task)
    test = {pool.identities[i].rpartition("/")[2] for i in pool.indices("test")}
    assert test == {f"image {i:02d}.png" for i in (0, 1, 12, 13)}
    assert pool.class_names["kind"] == ["cats", "dögs"]


@pytest.mark.slow
def test_a_folder_of_difficult_files(photo_folder: Path, tmp_path: Path, picture) -> None:
    folder = photo_folder / "hörrors"
    folder.mkdir()
    whole = cv2.imencode(".jpg", picture(30, 300, 400))[1].tobytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("a text file renamed")
    Image.new("RGB", (1, 1), (9, 8, 7)).save(folder / "one pixel.png")
    cv2.imwrite(str(folder / "panorama.png"), np.full((1000, 20_000), 50, np.uint8))
    Image.new("L", (20_000, 20_000)).save(folder / "giant.png")
    Image.fromarray(picture(31)).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(32)).save(folder / "turned.jpg", exif=exif)
    cv2.imwrite(str(folder / "deep.png"), picture(33)[..., ::-1].astype(np.uint16) * 257)
    Image.fromarray(picture(34)).quantize(32).save(folder / "palette.png")
    with pytest.raises(UserError) as caught:
        pool_of(tmp_path, [f"images/{photo_folder}"])
    text = str(caught.value)
    assert text.startswith("3 of 33 files of images/") and "--data.skip_unreadable" in text
    for name in ("truncated.jpg", "text.png", "giant.png"):
        assert text.count(f"hörrors/{name}: ") == 1
    with pytest.raises(
        UserError, match=r"none of its training images, on which their range is found: declare data\.value"
    ):
        pool_of(tmp_path, [f"images/{photo_folder}"], data={"skip_unreadable": True})
    pool = pool_of(tmp_path, [f"images/{photo_folder}"], data={"skip_unreadable": True, "value_range": "full"})
    assert len(pool) == 30 and pool.details["unreadable"] == 3
    deep = pool.gather(torch.tensor([number_of(pool, "deep.png")]))
    expected = torch.from_numpy(resize(picture(33), (16, 16))).permute(2, 0, 1) / 255
    assert (deep[0] - expected).abs().max() < 0.6 / 255
    assert any("left out 3 unreadable files" in warning for warning in pool.warnings)


def test_errors_of_tasks_are_named(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "two.csv").write_text("file,a,b\ncats/image 00.png,1,2\n")
    cases = {
        "no images: give --data.unlabelled": {},
        r"task 'x': images/.* has no labels": {"x": f"images/{photo_folder}"},
        r"has label columns a, b; choose one with --tasks\.x\.label": {"x": f"csv/{photo_folder}/two.csv"},
        r"unknown label column of task 'x' 'c'": {"x": Task(source=f"csv/{photo_folder}/two.csv", label="c")},
        r"task 'x' has no labelled image for (train|test)": {
            "x": Task(source=f"csv/{photo_folder}/two.csv", label="a")
        },
    }
    for words, tasks in cases.items():
        with pytest.raises(UserError, match=words):
            pool_of(tmp_path, None, **tasks)


def test_indices_name_unknown_splits_sources_and_tasks(photo_folder: Path, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [f"images/{photo_folder}"])
    for options, words in (
        ({"split": "tst"}, "'test'"),
        ({"split": "test", "source": "images"}, "source"),
        ({"split": "test", "task": "x"}, "task"),
    ):
        with pytest.raises(UserError, match=words):
            pool.indices(**options)


def test_grey_pools(photo_folder: Path, tmp_path: Path) -> None:
    data = Data(unlabelled=[f"images/{photo_folder}"], root=str(tmp_path))
    pool = build_pool(data, {}, image_size=(16, 16), channels=1)
    assert pool.shape == (1, 16, 16) and pool.gather(torch.tensor([0])).shape == (1, 1, 16, 16)


def test_summary_counts(photo_folder: Path, tmp_path: Path) -> None:
    summary = pool_of(tmp_path, None, kind=f"folder/{photo_folder}").summary()
    (counts,) = summary["sources"].values()
    assert sum(counts.values()) == 24 == summary["num_images"] and min(counts.values()) >= 1
    assert summary["tasks"]["kind"] == {**counts, "classes": 2, "kind": "single_label"}


def test_near_duplicates_are_searched_once(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vision_mtl.data import instances

    calls, search = [], instances.near_duplicates
    monkeypatch.setattr(instances, "near_duplicates", lambda *args: calls.append(1) or search(*args))
    first = pool_of(tmp_path, kind=f"folder/{photo_folder}")
    again = pool_of(tmp_path, kind=f"folder/{photo_folder}")
    assert len(calls) == 1 and (first.cluster == again.cluster).all()
    pool_of(tmp_path, kind=f"folder/{photo_folder}", size=(8, 8))  # other pixels
    pool_of(tmp_path, [f"folder/{photo_folder}"])  # other labels
    assert len(calls) == 3
    for file in (tmp_path / "store").glob("near-*.npy"):
        file.write_bytes(file.read_bytes()[:70])  # cut off in its header
    assert (pool_of(tmp_path, kind=f"folder/{photo_folder}").cluster == first.cluster).all() and len(calls) == 4

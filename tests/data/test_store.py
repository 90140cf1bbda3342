"""The decoded store: shared, atomic, verified, content-keyed; nothing readable is lost to a bad neighbour."""

import errno
import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import store as store_module
from vision_mtl.data.resize import resize
from vision_mtl.data.source import open_source
from vision_mtl.data.store import Settings, Store, clean, open_store

SMALL = Settings((16, 24))
Usage = namedtuple("Usage", "total used free")


def opened(folder: Path, root: Path, settings: Settings = SMALL, **options) -> Store:
    name = f"folder/{folder}"
    source = open_source(name, root)
    return open_store(name, source, source.items(), settings, root, **options)


def stores(root: Path) -> list[Path]:
    return [p for p in (root / "store").iterdir() if p.is_dir()]


def build_elsewhere(folder: Path, root: Path, queue) -> None:
    events = []
    found = opened(folder, root, progress=lambda what, done, total: events.append(what.split()[0]))
    queue.put(("decoding" in events, found.images.sum().item()))


def test_pixels_are_the_resized_files(photo_folder: Path, tmp_path: Path, picture) -> None:
    found = opened(photo_folder, tmp_path)
    order = [*range(12), *range(12, 24)]
    assert found.images.dtype == np.uint8 and found.images.shape == (24, 16, 24, 3)
    for row, number in enumerate(order):
        assert np.array_equal(found.images[row], resize(picture(number), (16, 24)))
    assert len(np.unique(found.hashes)) == 24


def test_a_second_run_decodes_nothing(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(photo_folder, tmp_path)
    monkeypatch.setattr("vision_mtl.data.sources.folder.file_bytes", lambda path: pytest.fail("decoded again"))
    assert np.array_equal(opened(photo_folder, tmp_path).images, first.images)


def test_other_settings_and_other_contents_are_other_stores(photo_folder: Path, tmp_path: Path, picture) -> None:
    opened(photo_folder, tmp_path)
    for settings in (Settings((16, 16)), Settings((16, 24), 1), Settings((16, 24), 3, "crop")):
        opened(photo_folder, tmp_path, settings)
    assert len(stores(tmp_path)) == 4
    Image.fromarray(picture(99)).save(photo_folder / "cats" / "image 00.png")
    assert np.array_equal(opened(photo_folder, tmp_path).images[0], resize(picture(99), (16, 24)))


def test_a_moved_folder_is_the_same_store(photo_folder: Path, tmp_path: Path) -> None:
    opened(photo_folder, tmp_path)
    moved = photo_folder.rename(tmp_path / "elsewhere")
    (moved.parent / photo_folder.name).symlink_to(moved)
    opened(photo_folder, tmp_path)
    assert len(stores(tmp_path)) == 1


@pytest.mark.slow
def test_concurrent_runs_decode_once(photo_folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    runs = [context.Process(target=build_elsewhere, args=(photo_folder, tmp_path, queue)) for _ in range(3)]
    for run in runs:
        run.start()
    found = [queue.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert sum(decoded for decoded, _ in found) == 1
    assert len({total for _, total in found}) == 1


@pytest.mark.parametrize("part", ["images.npy", "index.npz", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_noticed_and_mended(photo_folder: Path, tmp_path: Path, part: str, how: str) -> None:
    whole = np.array(opened(photo_folder, tmp_path).images)
    file = stores(tmp_path)[0] / part
    data = bytearray(file.read_bytes())
    if how == "remove":
        file.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data if how == "flip" else data[: len(data) // 2])
    mended = opened(photo_folder, tmp_path)
    assert np.array_equal(mended.images, whole) and mended.rebuilt
    assert opened(photo_folder, tmp_path).rebuilt is None


def test_an_interrupted_build_leaves_nothing(photo_folder: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("decoding") and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(photo_folder, tmp_path, progress=interrupt)
    assert stores(tmp_path) == []
    assert len(opened(photo_folder, tmp_path).images) == 24


def test_progress_counts_every_image(photo_folder: Path, tmp_path: Path) -> None:
    seen = []
    opened(photo_folder, tmp_path, progress=lambda what, done, total: seen.append((what.split()[0], done, total)))
    assert [event for event in seen if event[0] == "decoding"] == [("decoding", i, 24) for i in range(1, 25)]


def test_the_cap_is_said_with_its_option(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"would take .* GB \(24 images of \(16, 24, 3\)\), more than --data\.max_store_gb"
    ):
        opened(photo_folder, tmp_path, max_gb=1e-6)


def test_a_full_disk_is_said_before_writing(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 100))
    with pytest.raises(UserError, match=r"the disk is full: .* has 100 bytes free and needs 27,648.*--data\.root"):
        opened(photo_folder, tmp_path)
    assert stores(tmp_path) == []


def test_room_that_cannot_be_reserved_is_said_before_a_pixel_is_written(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota, which the free space of the disk does not show: writing through memory would end the process."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(UserError, match=r"your quota is used up; 27,648 bytes .*--data\.root"):
        opened(photo_folder, tmp_path)
    assert stores(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ESTALE, "has vanished while it was read"), (errno.EMFILE, "too many open files")]
)
def test_a_source_that_vanishes_is_no_unreadable_file(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """Else the rest of its files would be left out of a store that looks whole."""
    original = Path.open

    def vanish(self: Path, *words: object, **options: object) -> IO[bytes]:
        if self.name == "image 07.png":
            raise OSError(number, os.strerror(number))
        return original(self, *words, **options)

    monkeypatch.setattr(Path, "open", vanish)
    with pytest.raises(UserError, match=said):
        opened(photo_folder, tmp_path)
    assert stores(tmp_path) == []
    monkeypatch.undo()
    assert len(opened(photo_folder, tmp_path).kept) == 24


def test_unreadable_files_are_listed_and_the_rest_is_kept(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "cats" / "image 03.png").write_bytes(b"broken")
    found = opened(photo_folder, tmp_path)
    assert found.unreadable == [("cats/image 03.png", "not an image, whatever its name says")]
    assert len(found.kept) == len(found.hashes) == 23 and 3 not in found.kept
    again = opened(photo_folder, tmp_path)
    assert again.unreadable == found.unreadable and np.array_equal(again.kept, found.kept)


def test_clean_frees_what_it_says(photo_folder: Path, tmp_path: Path) -> None:
    opened(photo_folder, tmp_path)
    (folder, size), *rest = clean(tmp_path)
    assert not rest and not folder.exists() and size > 24 * 16 * 24 * 3
    assert clean(tmp_path) == []
    assert len(opened(photo_folder, tmp_path).images) == 24


def test_clean_leaves_a_store_in_the_making(photo_folder: Path, tmp_path: Path) -> None:
    opened(photo_folder, tmp_path)
    lock = store_module.FileLock(stores(tmp_path)[0].with_suffix(".lock"))
    with lock:
        assert clean(tmp_path) == []
    assert len(clean(tmp_path)) == 1

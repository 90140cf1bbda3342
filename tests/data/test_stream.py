"""Streamed images equal stored ones: the same pixels, contents, splits and labels; handling of broken files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import examine
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.shards import write_shards
from vision_mtl.data.store import Settings, clean
from vision_mtl.data.stream import StreamedImages


@pytest.fixture
def mixed_folder(photo_folder: Path, picture) -> Path:
    """PNG files, JPEG files that are decoded at a reduced scale, and an exact copy of each kind."""
    for number in range(24, 40):
        Image.fromarray(picture(number, 80, 96)).save(photo_folder / "cats" / f"image {number}.jpg", quality=90)
    Image.fromarray(picture(24, 80, 96)).save(photo_folder / "dögs" / "copy.jpg", quality=90, comment=b"told")
    Image.fromarray(picture(3)).save(photo_folder / "dögs" / "copy.bmp")
    return photo_folder


def pool_of(root: Path, source: str, stream: object, **options: object) -> Pool:
    data = Data(root=str(root), stream=stream, **options)
    return build_pool(data, {"kind": Task(source=source)}, image_size=(20, 24))


def dataset_of(folder: Path, where: Path) -> str:
    import datasets

    found = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(where / "cache"))
    found.save_to_disk(str(where / "saved"))
    return f"hfds/{where / 'saved'}"


@pytest.mark.parametrize("kind", ["folder", "wds", "hfds"])
def test_a_streamed_pool_is_the_stored_one(kind: str, mixed_folder: Path, tmp_path: Path) -> None:
    source = f"folder/{mixed_folder}"
    if kind == "wds":
        data, tasks = Data(root=str(tmp_path)), {"kind": Task(source=source)}
        pool = build_pool(data, tasks, image_size=(20, 24))
        write_shards(pool, data, tasks, Settings((20, 24)), tmp_path / "shards", max_bytes=40_000)
        source = f"wds/{tmp_path}/shards/*.tar"
    elif kind == "hfds":
        source = dataset_of(mixed_folder, tmp_path)
    stored, streamed = (pool_of(tmp_path / "root", source, way) for way in (False, True))
    assert stored.details["streamed"] == [] and streamed.details["streamed"] == [source]
    assert streamed.is_streamed and not stored.is_streamed and streamed.details["store_bytes"] == 0
    assert streamed.identities == stored.identities and len(streamed) == 42 and streamed.shape == stored.shape
    assert np.array_equal(streamed.split, stored.split) and np.array_equal(streamed.content, stored.content)
    assert np.array_equal(streamed.labels["kind"], stored.labels["kind"])
    assert streamed.details["exact_duplicates"] == stored.details["exact_duplicates"] == 2
    indices = torch.randperm(42, generator=torch.Generator().manual_seed(0))
    for num_workers in (None, 1, 3):
        assert np.array_equal(streamed.pixels(indices, num_workers), stored.pixels(indices))
    assert torch.equal(streamed.gather(indices[:5]), stored.gather(indices[:5]))
    assert sum("no search for near duplicates" in warning for warning in streamed.warnings) == 1


def test_a_stored_and_a_streamed_source_are_one_pool(mixed_folder: Path, tmp_path: Path) -> None:
    names = ["bundled/faces", f"images/{mixed_folder}"]
    pool = build_pool(Data(unlabelled=names, root=str(tmp_path), stream=True), {}, image_size=(20, 24))
    alone = build_pool(Data(unlabelled=names, root=str(tmp_path), stream=False), {}, image_size=(20, 24))
    assert pool.details["streamed"] == names[1:]  # packaged images are in memory anyway
    mixed = torch.tensor([len(pool) - 1, 0, 150, len(pool) - 2, 201])
    assert np.array_equal(pool.pixels(mixed), alone.pixels(mixed))


def test_above_the_limit_auto_streams_and_false_refuses(mixed_folder: Path, tmp_path: Path) -> None:
    source, limit = f"folder/{mixed_folder}", 42 * 20 * 24 * 3 / 1e9
    assert not pool_of(tmp_path, source, "auto", max_store_gb=limit).is_streamed
    assert pool_of(tmp_path, source, "auto", max_store_gb=limit * 0.99).is_streamed
    with pytest.raises(UserError, match=r"more than --data\.max_store_gb .*--data\.stream auto"):
        pool_of(tmp_path, source, False, max_store_gb=limit * 0.99)
    with pytest.raises(
        UserError, match=r"keep_near_duplicates_together needs stored images, but folder/.* is streamed"
    ):
        pool_of(tmp_path, source, True, keep_near_duplicates_together=True)


def test_a_second_run_reads_no_file_and_detects_a_changed_one(
    mixed_folder: Path, tmp_path: Path, picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look = examine.examine_item
    monkeypatch.setattr(examine, "examine_item", lambda s, i, a: (looked.append(i.identity), look(s, i, a))[1])
    source = f"folder/{mixed_folder}"
    first = pool_of(tmp_path, source, True)
    assert len(looked) == 42
    again = pool_of(tmp_path, source, True)
    assert len(looked) == 42 and np.array_equal(first.content, again.content)
    Image.fromarray(picture(77)).save(mixed_folder / "cats" / "image 00.png")
    changed = pool_of(tmp_path, source, True)
    assert len(looked) == 84 and (changed.content != first.content).sum() == 1
    (kept, *_) = (tmp_path / "store").glob("stream-*.npz")
    kept.write_bytes(kept.read_bytes()[:50])  # damaged: examined again
    pool_of(tmp_path, source, True)
    assert len(looked) >= 84
    clean(tmp_path)
    assert not list((tmp_path / "store").glob("stream-*"))


def test_broken_files_are_found_before_training(mixed_folder: Path, tmp_path: Path) -> None:
    whole = (mixed_folder / "cats" / "image 24.jpg").read_bytes()
    (mixed_folder / "cats" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed_folder / "cats" / "text.png").write_text("no image")
    source = f"folder/{mixed_folder}"
    for _ in range(2):  # found, and cached
        with pytest.raises(
            UserError, match=r"2 of 44 files of folder/.* cannot be read:\n  cats/half\.jpg: .*truncated"
        ):
            pool_of(tmp_path, source, True)
        pool = pool_of(tmp_path, source, True, skip_unreadable=True)
        assert len(pool) == 42 and any("left out 2 unreadable files" in warning for warning in pool.warnings)
    stored = pool_of(tmp_path, source, False, skip_unreadable=True)
    assert np.array_equal(pool.pixels(torch.arange(42)), stored.pixels(torch.arange(42)))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_file_that_breaks_later_is_named_or_replaced_by_grey(
    num_workers: int, mixed_folder: Path, tmp_path: Path
) -> None:
    source, file = f"folder/{mixed_folder}", mixed_folder / "cats" / "image 30.jpg"
    strict, lenient = (pool_of(tmp_path, source, True, skip_unreadable=skip) for skip in (False, True))
    number = next(i for i, name in enumerate(strict.identities) if name.endswith("image 30.jpg"))
    file.write_bytes(file.read_bytes()[:900])
    rows = torch.tensor([0, number, 5, 1])
    with pytest.raises(
        UserError, match=r"^'cats/image 30\.jpg' of folder/.* cannot be decoded: .*the same command again"
    ):
        strict.pixels(rows, num_workers)
    pixels = lenient.pixels(rows, num_workers)
    assert (pixels[1] == 128).all() and np.array_equal(pixels[[0, 2, 3]], strict.pixels(rows[[0, 2, 3]]))
    assert not strict.failures()
    (warning,) = lenient.failures()
    assert warning.startswith("1 streamed images could not be decoded") and "cats/image 30.jpg: " in warning


def test_reading_leaves_no_thread_and_keeps_no_pixel(mixed_folder: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    pool = pool_of(tmp_path, f"folder/{mixed_folder}", True, num_workers=3)
    pool.pixels(torch.arange(len(pool)))
    assert threading.active_count() == before
    (block,) = pool.blocks
    assert isinstance(block, StreamedImages) and block.nbytes == 0 and len(block) == block.shape[0] == 42
    assert not [path for path in (tmp_path / "store").iterdir() if path.is_dir()]

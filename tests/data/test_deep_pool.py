"""Deep sources in a pool: one range, found on training images, for a store, a stream, a mixed pool and shards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import examine
from vision_mtl.data.augment import Augmenter
from vision_mtl.data.depth import LEVELS, ValueRange
from vision_mtl.data.findings import Findings
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool, image_tensor
from vision_mtl.data.shards import write_shards
from vision_mtl.data.store import Settings, clean
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.data.value_ranges import KnownRanges

SIZE = (8, 10)


def write(file: Path, array: np.ndarray, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, array, photometric="minisblack", **options)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """30 images of int16 in two classes, -1000 to 1999, each with its own part of that range, at the pool's size."""
    folder, rng = tmp_path / "scans", np.random.default_rng(0)
    for number in range(30):
        array = rng.integers(-1000 + 10 * number, 1900 + number, SIZE, dtype=np.int16)
        write(folder / ("left" if number % 2 else "right") / f"{number:02d}.tif", array)
    return folder


def pool_of(tmp_path: Path, *folders: Path, channels: int = 1, tasks: dict | None = None, **options: object) -> Pool:
    data = Data(root=str(tmp_path / "root"), unlabelled=[f"images/{f}" for f in folders], **options)
    return build_pool(data, tasks or {}, image_size=SIZE, channels=channels)


def own_numbers(pool: Pool) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in pool.paths]).astype(float)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip(values, low, high) - low) / (high - low)


@pytest.mark.parametrize("stream", [False, True])
def test_the_range_is_that_of_the_training_images(scans: Path, tmp_path: Path, stream: bool) -> None:
    pool = pool_of(tmp_path, scans, stream=stream)
    values, train = own_numbers(pool), pool.split == 0
    low, high = values[train].min(), values[train].max()
    (entry,) = pool.details["value_ranges"].values()
    assert (entry["low"], entry["high"]) == (low, high) != (values.min(), values.max())
    assert entry["from"] == f"minimum and maximum of {train.sum()} training images" and entry["kind"] == "integer"
    assert pool.summary()["value_ranges"] == pool.details["value_ranges"]
    found = pool.gather(torch.arange(len(pool)))[:, 0].numpy()
    assert np.abs(found - scaled(values, low, high)).max() <= 0.5 / LEVELS + 1e-7
    assert pool.dtype == np.uint16 and pool.is_streamed == stream and found.min() == 0 and found.max() == 1


def test_one_voxel_does_not_change_the_other_images(scans: Path, tmp_path: Path) -> None:
    first = pool_of(tmp_path, scans, value_range=[-1000, 2000])
    file = first.paths[3]
    array = tifffile.imread(file)
    array[0, 0] = -1024
    write(file, array)
    second = pool_of(tmp_path, scans, value_range=[-1000, 2000])
    assert (first.pixels(torch.arange(30)) != second.pixels(torch.arange(30))).sum() <= 1


def test_an_image_and_its_double_differ(tmp_path: Path) -> None:
    array = np.arange(80, dtype=np.uint16).reshape(SIZE)
    for number in range(4):
        write(tmp_path / "x" / f"{number}.tif", array * (number + 1))
    pool = pool_of(tmp_path, tmp_path / "x", value_range=[0, 400])
    means = pool.gather(torch.arange(4)).mean((1, 2, 3))
    assert torch.allclose(means / means[0], torch.arange(1.0, 5.0), rtol=1e-3)


def test_twelve_bits_in_files_of_sixteen_use_the_full_scale(tmp_path: Path) -> None:
    for number in range(10):
        array = np.random.default_rng(number).integers(0, 4096, SIZE, dtype=np.uint16)
        (tmp_path / "x").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "x" / f"{number}.png")
    pool = pool_of(tmp_path, tmp_path / "x")
    assert pool.gather(torch.arange(10)).max() == 1 and len(np.unique(pool.pixels(torch.arange(10)))) > 400


def test_full_range_photographs(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in range(4):
        Image.fromarray(np.full(SIZE, 1000 * number, np.uint16)).save(tmp_path / "x" / f"{number}.png")
    pool = pool_of(tmp_path, tmp_path / "x", value_range="full")
    assert sorted(pool.pixels(torch.arange(4))[:, 0, 0, 0].tolist()) == [0, 1000, 2000, 3000]


@pytest.mark.parametrize("stream", [False, True])
def test_a_declared_range_needs_no_examination_of_a_store(
    scans: Path, tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    look = examine.examine_item
    monkeypatch.setattr(examine, "examine_item", lambda s, i, a: (looked.append(i), look(s, i, a))[1])
    task = Task(source=f"folder/{scans}", value_range=[-1000, 3000])
    data = Data(root=str(tmp_path / "root"), stream=stream, value_range=[0, 1])
    pool = build_pool(data, {"side": task}, image_size=SIZE, channels=1)
    assert len(looked) == (30 if stream else 0)
    found = pool.gather(torch.arange(30))[:, 0].numpy()
    assert np.abs(found - scaled(own_numbers(pool), -1000, 3000)).max() <= 0.5 / LEVELS + 1e-7


def test_a_second_run_decodes_nothing(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pool_of(tmp_path, scans, value_range=["5%", "95%"])
    for name in ("examine.examine_item", "store.read_item", "value_ranges.finite_values"):
        monkeypatch.setattr(f"vision_mtl.data.{name}", lambda *_: pytest.fail("decoded again"))
    again = pool_of(tmp_path, scans, value_range=["5%", "95%"])
    assert np.array_equal(again.pixels(torch.arange(30)), first.pixels(torch.arange(30)))
    values = own_numbers(first)[first.split == 0]
    (entry,) = first.details["value_ranges"].values()
    assert entry["low"] == np.quantile(values, 0.05, method="lower")
    clean(tmp_path / "root")
    assert not list((tmp_path / "root" / "store").iterdir())


def test_a_mixed_pool_widens_eight_bits_exactly(scans: Path, picture, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.fromarray(picture(number, *SIZE)[..., 0]).save(tmp_path / "photos" / f"{number}.png")
    alone = pool_of(tmp_path, tmp_path / "photos")
    for stream in (False, True):
        both = pool_of(tmp_path, tmp_path / "photos", scans, stream=stream)
        assert alone.dtype == np.uint8 and both.dtype == np.uint16
        assert torch.equal(both.gather(torch.arange(12)), alone.gather(torch.arange(12)))
    assert list(both.details["value_ranges"]) == [f"images/{scans}"]


def test_a_source_that_mixes_depths_is_told(scans: Path, picture, tmp_path: Path) -> None:
    Image.fromarray(picture(0)[..., 0]).save(scans / "left" / "eight.png")
    Image.fromarray(picture(1)[..., 0]).save(scans / "left" / "eight.jpg")
    pool = pool_of(tmp_path, scans)
    assert any("mixes types of numbers (2 8-bit, 30 int16)" in text for text in pool.warnings)
    write(scans / "float.tif", np.random.default_rng(0).random(SIZE).astype(np.float32))
    with pytest.raises(UserError, match="holds float32 and int16 images, whose scales differ"):
        pool_of(tmp_path, scans)
    with pytest.raises(UserError, match=r"01\.tif' has int16 values, and the range -1 to 1 .* for float ones"):
        pool_of(tmp_path, scans, value_range=[-1, 1])


def test_files_with_a_declared_maximum_need_no_range(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in range(6):
        values = np.full(SIZE, 800 * number, ">u2")
        (tmp_path / "x" / f"{number}.pgm").write_bytes(b"P5\n10 8\n4000\n" + values.tobytes())
    for stream in (False, True):
        pool = pool_of(tmp_path, tmp_path / "x", stream=stream)
        assert torch.allclose(pool.gather(torch.arange(6)).mean((1, 2, 3)), torch.arange(6) / 5, atol=1e-4)
        assert pool.details["value_ranges"] == {}
    write(tmp_path / "x" / "z.tif", np.arange(80, dtype=np.uint16).reshape(SIZE))
    pool = pool_of(tmp_path, tmp_path / "x", value_range=[0, 79])  # the others keep their own maximum
    assert torch.allclose(pool.gather(torch.arange(6)).mean((1, 2, 3)), torch.arange(6) / 5, atol=1e-4)


def test_without_a_range_the_other_findings_are_told_too(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "x" / f"{number}.tif", np.full(SIZE, 7, np.uint16))
    with pytest.raises(UserError, match="the single value 7"):
        pool_of(tmp_path, tmp_path / "x")
    findings = Findings(keep_going=True)
    data = Data(root=str(tmp_path / "root"), unlabelled=[f"images/{tmp_path / 'x'}"])
    pool = build_pool(data, {}, image_size=SIZE, channels=1, findings=findings)
    assert len(pool) == 12 and any("single value 7" in str(found) for found in findings.of("error"))


def test_near_duplicates_need_a_declared_range(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keep_near_duplicates_together .* range of images/.*data\.value_range"):
        pool_of(tmp_path, scans, keep_near_duplicates_together=True)
    pool_of(tmp_path, scans, keep_near_duplicates_together=True, value_range=[-1000, 2000])


def test_unreadable_deep_files_are_listed_before_the_range_is_found(scans: Path, tmp_path: Path) -> None:
    file = scans / "left" / "01.tif"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"1 of 30 files of .* cannot be read:\n  left/01\.tif: damaged"):
        pool_of(tmp_path, scans)
    pool = pool_of(tmp_path, scans, skip_unreadable=True)
    assert len(pool) == 29 and pool.details["unreadable"] == 1


def test_the_range_of_a_run_is_used_for_other_images(scans: Path, tmp_path: Path) -> None:
    data = Data(root=str(tmp_path / "root"), unlabelled=[f"images/{scans}"])
    known = KnownRanges("runs/a", {"folder/other": ValueRange(-2000, 2000, kind="integer")})
    pool = build_pool(data, {}, image_size=SIZE, channels=1, known=known)
    assert pool.details["value_ranges"][f"images/{scans}"]["from"] == "the range of runs/a"
    assert np.abs(pool.gather(torch.arange(30))[:, 0].numpy() - scaled(own_numbers(pool), -2000, 2000)).max() < 1e-4
    with pytest.raises(UserError, match=r"runs/a was trained on 8-bit images; declare data\.value_range"):
        build_pool(data, {}, image_size=SIZE, channels=1, known=KnownRanges("runs/a", {}))


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_bands_must_be_as_many_as_the_model_takes(tmp_path: Path, kind: str) -> None:
    for number in range(6):
        five = np.random.default_rng(number).integers(0, 3000, (20, 30, 5)).astype(kind)
        write(tmp_path / "x" / f"{number}.tif", five, planarconfig="contig")
    pool = pool_of(tmp_path, tmp_path / "x", channels=5, rgb_bands=[4, 2, 0])
    assert pool.shape == (5, *SIZE) and pool.rgb_bands == [4, 2, 0]
    for channels in (1, 3, 4):
        with pytest.raises(UserError, match=rf"0\.tif' has 5 channels, but backbone\.in_chans is {channels}"):
            pool_of(tmp_path, tmp_path / "x", channels=channels)
    with pytest.raises(UserError, match=r"data\.rgb_bands must lie in 0 to 4"):
        pool_of(tmp_path, tmp_path / "x", channels=5, rgb_bands=[0, 1, 5])
    write(tmp_path / "x" / "9.tif", np.zeros((20, 30, 4), kind), planarconfig="contig")
    for options in ({}, {"stream": True}, {"value_range": [0, 3000]}):
        with pytest.raises(UserError, match=r"9\.tif' has 4 channels, but backbone\.in_chans is 5"):
            pool_of(tmp_path, tmp_path / "x", channels=5, **options)


def test_uint16_becomes_floats_exactly() -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256, 1)
    found = image_tensor(pixels).flatten()
    assert found[0] == 0 and found[-1] == 1 and torch.equal(found, torch.arange(65536) / 65535)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("policy", ["light", "mirror", "none"])
def test_deep_images_are_augmented_as_floats(policy: str, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (16, 20, channels), dtype=np.uint16)
    mask = np.zeros((16, 20), np.uint8)
    found, (changed,) = Augmenter("t", policy, image.shape, np.uint16).apply(image, [mask], 0, 0, 1)
    assert found.dtype == np.uint16 and found.shape == image.shape and changed.shape == mask.shape
    assert np.array_equal(found, image) == (policy == "none")
    assert abs(found.mean() / image.mean() - 1) < 0.4


def test_a_labelled_batch_of_deep_images(scans: Path, tmp_path: Path) -> None:
    task = Task(source=f"folder/{scans}", augment="none")
    pool = build_pool(Data(root=str(tmp_path / "root")), {"side": task}, image_size=SIZE, channels=1)
    indices = pool.indices("train", task="side")
    with TaskLoader(pool, {"side": task}, TaskBatches({"side": indices}, 4, 0), 0, num_workers=1) as loader:
        batch = loader.at(0)
    assert torch.equal(batch.images, pool.gather(batch.indices))


def test_shards_hold_the_deep_files_and_read_alike(scans: Path, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, scans, value_range=[-1000, 2000])
    data = Data(root=str(tmp_path / "root"), unlabelled=[f"images/{scans}"], value_range=[-1000, 2000])
    for source, folder in ((f"images/{scans}", "a"), (f"wds/{tmp_path}/a/*.tar", "b")):  # of files, and of shards
        own = replace(data, unlabelled=[source])
        written = build_pool(own, {}, image_size=SIZE, channels=1)
        write_shards(written, own, {}, Settings(SIZE, 1), tmp_path / folder, max_bytes=1 << 20)
    again = build_pool(replace(data, unlabelled=[f"wds/{tmp_path}/b/*.tar"]), {}, image_size=SIZE, channels=1)
    every = np.sort(pool.pixels(torch.arange(30)).reshape(30, -1), axis=0)
    assert np.array_equal(np.sort(again.pixels(torch.arange(30)).reshape(30, -1), axis=0), every)

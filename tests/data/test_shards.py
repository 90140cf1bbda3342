"""Shards contain the source's bytes, labels, groups and splits, in files of bounded size."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import shards
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.shards import Shard, write_shards
from vision_mtl.data.source import SPLITS, Item, open_source
from vision_mtl.data.store import Settings

SIZE = (16, 16)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits are drawn from a source's name: a relative path gives the same splits each time."""
    monkeypatch.chdir(tmp_path)


def pack(folder: Path, data: Data, tasks: dict[str, Task], max_bytes: int = 10**9) -> tuple[Pool, list[Shard]]:
    pool = build_pool(data, tasks, image_size=SIZE)
    return pool, write_shards(pool, data, tasks, Settings(SIZE), folder, max_bytes=max_bytes)


def test_a_folder_of_classes_returns_byte_for_byte_in_the_same_splits(photo_folder: Path, tmp_path: Path) -> None:
    data, source = Data(root=str(tmp_path / "root")), f"folder/{photo_folder.name}"
    pool, written = pack(tmp_path / "shards", data, {"pets": Task(source=source)}, max_bytes=30_000)
    assert len(written) > 3 and all(s.num_bytes == s.path.stat().st_size for s in written)
    assert all(shard.num_bytes <= 30_000 + 10_240 for shard in written)  # tar pads a file to 20 blocks
    index = json.loads((tmp_path / "shards" / "index.json").read_text("utf-8"))
    splits = {
        i.removeprefix(f"{source}::"): SPLITS[split] for i, split in zip(pool.identities, pool.split, strict=True)
    }
    items = open_source("wds/shards/*.tar", tmp_path).items()
    assert len(items) == 24
    for item in items:
        shard, _, key = item.identity.partition(":")
        original = index[shard][key]
        assert item.labels == {"cls": Path(original).parent.name} and item.split == splits[original]
        with tarfile.open(tmp_path / "shards" / shard) as tar:
            assert tar.extractfile(f"{key}.png").read() == (photo_folder / original).read_bytes()
    again = build_pool(data, {"pets": Task(source="wds/shards/*.tar")}, image_size=SIZE)
    assert again.class_names == pool.class_names and sorted(again.content) == sorted(pool.content)


def test_the_same_images_give_the_same_bytes(photo_folder: Path, tmp_path: Path) -> None:
    data, tasks = Data(root=str(tmp_path / "root")), {"pets": Task(source=f"folder/{photo_folder.name}")}
    first, second = (pack(tmp_path / name, data, tasks)[1] for name in "ab")
    assert [s.path.read_bytes() for s in first] == [s.path.read_bytes() for s in second]


def test_several_columns_groups_and_labels_from_paths(photo_folder: Path, tmp_path: Path) -> None:
    files = sorted(photo_folder.rglob("*.png"))[1:]
    rows = [f"{f.relative_to(photo_folder)},{'' if n % 5 else 'old '},{n % 3},p{n // 2}" for n, f in enumerate(files)]
    (photo_folder / "labels.csv").write_text("\n".join(["file,age,kind,person", *rows]) + "\n", "utf-8")
    source = f"csv/{photo_folder.name}/labels.csv"
    tasks = {
        "kind": Task(source=source, label="kind", group="person"),
        "number": Task(source=source, label_from=r"(\d)\.png$", group="person"),
    }
    pool, _ = pack(tmp_path / "shards", Data(root=str(tmp_path / "root")), tasks)
    index = json.loads((tmp_path / "shards" / "index.json").read_text("utf-8"))
    items = open_source("wds/shards/*.tar", tmp_path).items()
    assert len(items) == len(pool) == 24
    known = {str(f.relative_to(photo_folder)): n for n, f in enumerate(files)}
    for item in items:
        shard, _, key = item.identity.partition(":")
        n = known[index[shard][key]]
        expected = {"kind": str(n % 3), "person": f"p{n // 2}", "number": index[shard][key][-5]}
        assert item.labels == expected | ({} if n % 5 else {"age": "old"})
        assert item.group == f"p{n // 2}"


def test_a_source_without_files_keeps_its_pixels(tmp_path: Path, picture) -> None:
    import datasets

    rows = {"picture": [Image.fromarray(picture(n)) for n in range(12)]}
    features = datasets.Features({"picture": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    data = Data(unlabelled=[f"hfds/{tmp_path / 'set'}"], root=str(tmp_path / "root"))
    pack(tmp_path / "shards", data, {})
    source = open_source("wds/shards/*.tar", tmp_path)
    found = sorted(source.read(item).tobytes() for item in source.items())
    assert found == sorted(np.asarray(picture(n)).tobytes() for n in range(12))


def test_invalid_targets_and_sources_are_refused(photo_folder: Path, tmp_path: Path) -> None:
    data, tasks = Data(root=str(tmp_path / "root")), {"pets": Task(source=f"folder/{photo_folder.name}")}
    with pytest.raises(UserError, match=r"must be a new or empty folder"):
        pack(photo_folder, data, tasks)
    several = Data(unlabelled=[f"images/{photo_folder.name}/cats"], root=data.root)
    with pytest.raises(UserError, match=r"one source at a time; found 2: images/.*cats, folder/"):
        pack(tmp_path / "shards", several, tasks)
    assert not (tmp_path / "shards").exists()


TEXTS = st.text(max_size=6) | st.sampled_from(["a.b", "a/b", "ü", " x ", "\ufeff1", "1.0", "no", '"', "a,b", "\n"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.dictionaries(TEXTS, TEXTS.filter(str.strip), max_size=3), min_size=1, max_size=4))
def test_labels_return_as_they_were(labels: list[dict[str, str]], tmp_path: Path) -> None:
    """Labels with dots, slashes, line breaks, marks and spaces, several or none, by the members of a sample."""

    class Drawn:
        version = "1"

        def read(self, item: Item) -> np.ndarray:
            return np.zeros((4, 4, 3), np.uint8)

    items = [Item(f"{n}", labels=own) for n, own in enumerate(labels)]
    as_text = shards._fit_text_files(items)
    (samples,) = shards._in_shards(Drawn(), items, 10**9, as_text)  # type: ignore[arg-type]
    path = tmp_path / "train-0.tar"
    shards._write(path, [member for *_, members in samples for member in members], len(samples))
    source = open_source(f"wds/{path}", tmp_path)
    expected = [{"cls" if as_text else name: value for name, value in own.items()} for own in labels]
    assert [dict(item.labels) for item in source.items()] == expected and not source.findings


def test_files_keep_their_bytes_and_get_the_suffix_of_their_format(tmp_path: Path, picture) -> None:
    import datasets

    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    buffers = [io.BytesIO() for _ in range(3)]
    Image.fromarray(deep).save(buffers[0], "PNG")
    Image.fromarray(picture(1)).save(buffers[1], "JPEG")
    Image.fromarray(picture(2)).save(buffers[2], "TIFF")
    rows = {"picture": [{"bytes": buffer.getvalue(), "path": None} for buffer in buffers]}
    features = datasets.Features({"picture": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    data = Data(unlabelled=[f"hfds/{tmp_path / 'set'}"], root=str(tmp_path / "root"), value_range="full")
    pack(tmp_path / "shards", data, {})
    found = {}
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            found |= {tar.extractfile(m).read(): m.name.partition(".")[2] for m in tar}
    assert found == dict(zip((buffer.getvalue() for buffer in buffers), ("png", "jpg", "tif"), strict=True))


def test_a_file_of_another_suffix_can_be_read_back(tmp_path: Path, picture) -> None:
    for n in range(12):
        Image.fromarray(picture(n)).save(tmp_path / f"{n}.upload", "PNG")
    lines = ["image,label", *(f"{n}.upload,{n % 2}" for n in range(12))]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    data = Data(root=str(tmp_path / "root"))
    pack(tmp_path / "shards", data, {"t": Task(source="csv/l.csv")})
    assert len(open_source("wds/shards/*.tar", tmp_path).items()) == 12


def test_a_task_with_the_name_of_another_column_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    files = sorted(photo_folder.rglob("image*.png"))
    rows = [f"{file.relative_to(photo_folder)},{n % 2}" for n, file in enumerate(files)]
    (photo_folder / "l.csv").write_text("\n".join(["file,kind", *rows]), "utf-8")
    task = Task(source=f"csv/{photo_folder.name}/l.csv", label_from=r"(\d)\.png$")
    with pytest.raises(UserError, match=r"by label_from of task 'kind'\. Give the task another name"):
        pack(tmp_path / "shards", Data(root=str(tmp_path / "root")), {"kind": task})

"""Options `tasks.NAME.image` and `data.image` reach the source; what cannot apply is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vision_mtl as vm
from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.source import has_columns, open_source


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A CSV file with two columns of images."""
    lines = ["file,photo,label"]
    for n in range(20):
        for kind, value in (("a", n), ("b", 200 + n)):
            Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / f"{kind}{n}.png")
        lines.append(f"a{n}.png,b{n}.png,{n % 2}")
    (tmp_path / "l.csv").write_text("\n".join(lines))
    return f"csv/{tmp_path}/l.csv"


@pytest.fixture
def shard(tmp_path: Path) -> str:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for n in range(20):
            for suffix, value in (("file", 50 + n), ("photo", 100 + n)):
                buffer = io.BytesIO()
                Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "PNG")
                info = tarfile.TarInfo(f"{n}.{suffix}")
                info.size = len(buffer.getvalue())
                tar.addfile(info, io.BytesIO(buffer.getvalue()))
    return f"wds/{tmp_path}/s.tar"


def pool_of(tmp_path: Path, tasks: dict[str, Task], **options: object) -> Pool:
    return build_pool(Data(root=str(tmp_path / "root"), **options), tasks, image_size=(4, 4))  # type: ignore[arg-type]


def values(pool: Pool) -> list[int]:
    return sorted(int(block[n, 0, 0, 0]) for block in pool.blocks for n in range(len(block)))


def test_a_csv_column(table: str, tmp_path: Path) -> None:
    assert values(pool_of(tmp_path, {"t": Task(source=table, label="label")})) == list(range(20))
    photos = pool_of(tmp_path, {"t": Task(source=table, label="label", image="photo")})
    assert values(photos) == list(range(200, 220)) and photos.class_names == {"t": ["0", "1"]}
    with pytest.raises(UserError, match=r"unknown image column of .*l\.csv 'foto'\. Did you mean 'photo'"):
        pool_of(tmp_path, {"t": Task(source=table, label="label", image="foto")})


def test_data_image_is_the_default_and_a_task_overrides_it(table: str, shard: str, tmp_path: Path) -> None:
    tasks = {"t": Task(source=table, label="label")}
    assert values(pool_of(tmp_path, tasks, image="photo")) == list(range(200, 220))
    tasks = {"t": Task(source=table, label="label", image="file")}
    found = pool_of(tmp_path, tasks, image="photo", unlabelled=[shard])
    assert values(found) == [*range(20), *range(100, 120)]


def test_tasks_on_one_source_agree(table: str, tmp_path: Path) -> None:
    tasks = {name: Task(source=table, label="label", image=name) for name in ("file", "photo")}
    with pytest.raises(UserError, match=r"must agree on one image column .*'file': 'file', 'photo': 'photo'"):
        pool_of(tmp_path, tasks)
    tasks = {"a": Task(source=table, label="label"), "b": Task(source=table, label="label", image="photo")}
    assert values(pool_of(tmp_path, tasks)) == list(range(200, 220))


def test_sources_without_columns(table: str, tmp_path: Path) -> None:
    plain = f"images/{tmp_path}"
    with pytest.raises(UserError, match=r"images/.* has no columns, so it has no image column 'photo'"):
        pool_of(tmp_path, {"t": Task(source=plain, label_from=r"(.)\d+\.png", image="photo")})
    with pytest.raises(UserError, match=r"data\.image 'photo' names an image column, but images/.* has none"):
        pool_of(tmp_path, {}, image="photo", unlabelled=[plain])
    assert len(pool_of(tmp_path, {}, image="photo", unlabelled=[plain, table])) == 40  # the photos are among the files


def test_the_python_api_takes_the_column(table: str, tmp_path: Path) -> None:
    assert values(vm.open_images(table, 8, root=tmp_path / "root", image="photo")) == list(range(200, 220))


def test_kinds_with_columns() -> None:
    assert [kind for kind in ("csv", "hfds", "wds", "folder", "images", "nothing") if has_columns(f"{kind}/x")] == [
        "csv",
        "hfds",
        "wds",
    ]
    with pytest.raises(UserError, match="bundled/digits has no columns"):
        open_source("bundled/digits", Path(), "image")

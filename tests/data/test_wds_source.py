"""`wds/`: which member is the image and which are labels; what is ambiguous or left out is said by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.source import Source, open_source


def encoded(number: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def told(source: Source, severity: str = "error") -> str:
    """Return the findings of one severity."""
    source.items()
    return "\n".join(str(finding) for finding in source.findings if finding.severity == severity)


@pytest.fixture
def depth_shard(tmp_path: Path) -> Path:
    """Two samples with a picture and a depth map, which is first in the alphabet."""
    members = {}
    for n in range(2):
        members |= {f"{n}.cls": str(n).encode(), f"{n}.depth.png": encoded(100 + n), f"{n}.jpg": encoded(n, "JPEG")}
    return write(tmp_path / "train.tar", members)


def test_several_pictures_are_an_error_that_names_them_and_the_option(depth_shard: Path, tmp_path: Path) -> None:
    source = open_source(f"wds/{depth_shard}", tmp_path)
    said = told(source)
    assert source.items() == []
    assert "samples with several images: 2, for example train.tar:0 (depth.png, jpg)" in said
    assert "--tasks.NAME.image (for images without labels --data.image) depth.png or jpg" in said


@pytest.mark.parametrize(("image", "values"), [("jpg", [0, 1]), ("JPG", [0, 1]), (".depth.png", [100, 101])])
def test_the_option_chooses_the_picture(depth_shard: Path, tmp_path: Path, image: str, values: list[int]) -> None:
    source = open_source(f"wds/{depth_shard}", tmp_path, image)
    items = source.items()
    assert [int(source.read(item)[0, 0, 0]) for item in items] == values
    assert [item.labels for item in items] == [{"cls": "0"}, {"cls": "1"}]
    assert source.version != open_source(f"wds/{depth_shard}", tmp_path).version
    assert "not read: " in told(source, "note")


def test_an_unknown_suffix_names_the_nearest(depth_shard: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown image suffix of wds/.* 'dept.png'. Did you mean 'depth.png'"):
        open_source(f"wds/{depth_shard}", tmp_path, "dept.png").items()


def test_pictures_of_different_columns_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.rgb.png": encoded(0), "1.depth.png": encoded(1), "2.rgb.png": encoded(2)})
    assert "images have different suffixes: .rgb.png (2), .depth.png (1)" in told(open_source(f"wds/{path}", tmp_path))
    source = open_source(f"wds/{path}", tmp_path, "rgb.png")
    assert len(source.items()) == 2 and not told(source)
    assert "samples without rgb.png are left out: 1, a.tar:1 (depth.png)" in told(source, "warning")


def test_pictures_of_different_formats_are_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": encoded(0), "1.jpg": encoded(1, "JPEG"), "2.webp": encoded(2, "WEBP")})
    source = open_source(f"wds/{path}", tmp_path)
    assert len(source.items()) == 3 and not source.findings


def test_names_with_more_dots_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"img 1.0.png": encoded(0), "img 1.5.png": encoded(1)})
    said = told(open_source(f"wds/{path}", tmp_path))
    assert "a.tar:img 1 (0.png, 5.png)" in said and "a suffix begins at the first dot" in said


def test_repeated_keys_name_shard_key_and_members(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": encoded(0), "1.png": encoded(1), "0.cls": b"1"})
    said = told(open_source(f"wds/{path}", tmp_path))
    assert "keys that repeat in their shard: 1, for example a.tar:0 (0.png, 0.cls)" in said


def test_the_same_key_in_two_shards_is_two_samples(tmp_path: Path) -> None:
    for name, number in (("a.tar", 1), ("b.tar", 2)):
        write(tmp_path / name, {"0.png": encoded(number)})
    source = open_source(f"wds/{tmp_path}/*.tar", tmp_path)
    assert [item.identity for item in source.items()] == ["a.tar:0", "b.tar:0"] and not source.findings
    assert [int(source.read(item)[0, 0, 0]) for item in source.items()] == [1, 2]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    members = {"0.png": encoded(0), "0.npy": b"", "._0.png": b"", "README": b"", "1.cls": b"4"}
    source = open_source(f"wds/{write(tmp_path / 'a.tar', members)}", tmp_path)
    assert len(source.items()) == 1
    assert told(source, "warning") == f"wds/{tmp_path}/a.tar: samples without an image are left out: 1, a.tar:1 (cls)."
    notes = told(source, "note")
    assert "hidden files are left out: 1, for example ._0.png" in notes and ".npy (1)" in notes
    assert "files without a suffix are left out: 1, for example README" in notes


def test_a_damaged_shard_does_not_hide_what_is_wrong_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar file")
    write(tmp_path / "b.tar", {"0.png": encoded(0), "0.json": b"{"})
    said = told(open_source(f"wds/{tmp_path}/*.tar", tmp_path))
    assert "a.tar' is not an uncompressed tar file" in said and "b.tar:0.json is not JSON" in said
    with pytest.raises(UserError, match="2 errors in the data"):
        build_pool(Data(unlabelled=[f"wds/{tmp_path}/*.tar"], root=str(tmp_path / "r")), {}, image_size=(8, 8))


@pytest.mark.parametrize(
    ("members", "labels"),
    [
        ({"cls": b"\xef\xbb\xbf3\n"}, {"cls": "3"}),
        ({"cls": b" \n"}, {}),
        ({"txt": "größer".encode()}, {"txt": "größer"}),
        ({"json": b'\xef\xbb\xbf{"a": 1.5, "b": true, "c": null, "d": " ", "e": NaN}'}, {"a": "1.5", "b": "True"}),
        ({"json": b'{"cls": "3"}', "cls": b"3"}, {"cls": "3"}),
        ({"json": b'{"f": 0.1234567890123456}'}, {"f": "0.1234567890123456"}),
    ],
)
def test_label_files(members: dict[str, bytes], labels: dict[str, str], tmp_path: Path) -> None:
    content = {"0.png": encoded(0)} | {f"0.{suffix}": data for suffix, data in members.items()}
    source = open_source(f"wds/{write(tmp_path / 'a.tar', content)}", tmp_path)
    assert source.items()[0].labels == labels and not source.findings


@pytest.mark.parametrize(
    ("members", "wrong"),
    [
        ({"json": b'{"a": 1, "a": 2}'}, "a.tar:0.json is not JSON: key 'a' occurs twice"),
        ({"json": b'{"cls": "4"}', "cls": b"3"}, "a.tar:0.cls has cls '3', but another file of the sample '4'"),
        ({"cls": b"\xff\xfe"}, "a.tar:0.cls is not UTF-8 text"),
        ({"group": b"\xff\xfe"}, "a.tar:0.group is not UTF-8 text"),
    ],
)
def test_label_files_that_cannot_be_used(members: dict[str, bytes], wrong: str, tmp_path: Path) -> None:
    content = {"0.png": encoded(0)} | {f"0.{suffix}": data for suffix, data in members.items()}
    assert wrong in told(open_source(f"wds/{write(tmp_path / 'a.tar', content)}", tmp_path))


def test_a_label_that_is_a_list_is_an_error_for_its_task_only(tmp_path: Path) -> None:
    members = {}
    for n in range(12):
        text = json.dumps({"tags": ["a"], "age": n, "kind": "ab"[n % 2]})
        members |= {f"{n}.png": encoded(n), f"{n}.json": text.encode()}
    source, data = f"wds/{write(tmp_path / 'a.tar', members)}", Data(root=str(tmp_path / "r"))
    build_pool(data, {"kind": Task(source=source, label="kind")}, image_size=(8, 8))
    with pytest.raises(UserError, match=r"task 't': these columns of wds/.* cannot be labels: tags \(a list\)"):
        build_pool(data, {"t": Task(source=source, label="tags")}, image_size=(8, 8))


def test_an_empty_group_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": encoded(0), "0.group": b"\n", "1.png": encoded(1), "1.group": b"ann\n"})
    assert [item.group for item in open_source(f"wds/{path}", tmp_path).items()] == [None, "ann"]


def test_names_with_colons_brackets_and_other_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "set [1] {2}" / "a:b.tar", {"x:y.png": encoded(5), "caf\udce9.png": encoded(6)})
    for pattern in (path, f"{path.parent}/*.tar"):
        source = open_source(f"wds/{pattern}", tmp_path)
        assert [item.identity for item in source.items()] == ["a:b.tar:x:y", "a:b.tar:caf\\xe9"]
        assert [int(source.read(item)[0, 0, 0]) for item in source.items()] == [5, 6]


def test_shards_of_the_same_name_in_folders_of_splits(tmp_path: Path) -> None:
    for folder in ("train", "validation"):
        write(tmp_path / folder / "000.tar", {"0.png": encoded(len(folder))})
    source = open_source(f"wds/{tmp_path}/{{train,validation}}/*.tar", tmp_path)
    assert [(item.identity, item.split) for item in source.items()] == [
        ("train/000.tar:0", "train"),
        ("validation/000.tar:0", "val"),
    ]
    with pytest.raises(UserError, match=r"names a shard twice: .*train/000\.tar"):
        open_source(f"wds/{tmp_path}/{{train,train}}/*.tar", tmp_path).items()


def test_shards_without_a_split_beside_others_are_reported(tmp_path: Path) -> None:
    for name in ("in1k-train2012-0.tar", "in1k-validation-0.tar", "extra-0.tar"):
        write(tmp_path / name, {"0.png": encoded(len(name))})
    source = open_source(f"wds/{tmp_path}/*.tar", tmp_path)
    assert [item.split for item in source.items()] == [None, "train", "val"]
    assert "shards extra-0.tar (1 images) name neither train, validation nor test: they are treated like train" in told(
        source, "warning"
    )

"""`hfds/` and `wds/` against small sets that the tests write in the real formats."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.source import open_source


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def huggingface_set(picture, count: int, start: int = 0):
    import datasets

    kinds = datasets.Features(
        {
            "picture": datasets.Image(),
            "breed": datasets.ClassLabel(names=["cat", "dog"]),
            "owner": datasets.Value("string"),
        }
    )
    rows = range(start, start + count)
    content = {
        "picture": [{"bytes": png(picture(i)), "path": None} for i in rows],
        "breed": [i % 2 if i % 5 else -1 for i in rows],
        "owner": [None if i % 3 else f"owner {i}" for i in rows],
    }
    return datasets.Dataset.from_dict(content, features=kinds)


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_huggingface_set_on_disk(form: str, tmp_path: Path, picture) -> None:
    import datasets

    folder = tmp_path / "set"
    parts = {"train": huggingface_set(picture, 7), "test": huggingface_set(picture, 3, start=7)}
    if form == "saved":
        datasets.DatasetDict(parts).save_to_disk(str(folder))
    else:
        (folder / "data").mkdir(parents=True)
        for split, part in parts.items():
            part.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    source = open_source(f"hfds/{folder}", tmp_path)
    items = source.items()
    assert [item.split for item in items] == ["train"] * 7 + ["test"] * 3
    assert items[0].labels == {"owner": "owner 0"}
    assert items[1].labels == {"breed": "dog"}
    assert items[6].labels == {"breed": "cat", "owner": "owner 6"}
    assert np.array_equal(source.read(items[8]), picture(8))


def test_a_folder_of_images_by_class(tmp_path: Path, photo_folder: Path, picture) -> None:
    for note in ("notes.txt", ".hidden.png", "cats/labels.csv"):
        (photo_folder / note).unlink()
    source = open_source(f"hfds/{photo_folder}", tmp_path)
    items = source.items()
    assert sorted({item.labels["label"] for item in items}) == ["cats", "dögs"]
    assert len(items) == 24
    source.read(items[0])


def test_a_row_without_an_image_is_unreadable(tmp_path: Path) -> None:
    import datasets

    content = {"image": [None], "label": ["x"]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hfds/{tmp_path / 'set'}", tmp_path)
    with pytest.raises(UnreadableImage, match="contains no image"):
        source.read(source.items()[0])


def test_a_set_without_images_lists_its_columns(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hfds/{tmp_path / 'set'}", tmp_path)
    with pytest.raises(UserError, match=r"has no image column\. Its columns are text \(string\)"):
        source.items()


def test_a_set_that_cannot_be_loaded_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    for module in (datasets.config, huggingface_hub.constants):  # both read the environment once, when imported
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hfds/nobody/nothing could not be loaded .*hfds/FOLDER"):
        open_source("hfds/nobody/nothing", tmp_path).items()


def told(source) -> str:
    """Return what listing the source found out."""
    source.items()
    return "\n".join(f"{finding.severity}: {finding}" for finding in source.findings)


def write_shard(path: Path, samples: dict[str, dict[str, bytes]], compress: bool = False) -> None:
    with tarfile.open(path, "w:gz" if compress else "w") as tar:
        for stem, members in samples.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{stem}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path, picture) -> Path:
    for shard in range(3):
        name = "test" if shard == 2 else "train"
        samples = {
            f"part/{shard}{i}": {
                "png": png(picture(10 * shard + i)),
                "cls": str(i % 2).encode(),
                "json": json.dumps({"owner": f"o{i}", "age": i, "box": [1, 2], "note": ""}).encode(),
            }
            for i in range(4)
        }
        samples[f"part/{shard}x"] = {"txt": b"a caption without a picture"}
        write_shard(tmp_path / f"{name}-{shard:03d}.tar", samples)
    return tmp_path


def test_shards(shards: Path, picture) -> None:
    source = open_source(f"wds/{shards}/{{train-{{000..001}},test-002}}.tar", shards)
    items = source.items()
    assert [item.split for item in items] == ["train"] * 8 + ["test"] * 4
    assert items[5].labels == {"cls": "1", "owner": "o1", "age": "1"}
    assert np.array_equal(source.read(items[5]), picture(11))


def test_wildcards(shards: Path) -> None:
    assert len(open_source(f"wds/{shards}/train-*.tar", shards).items()) == 8


def test_the_version_changes_with_the_shards(shards: Path, picture) -> None:
    before = open_source(f"wds/{shards}/*.tar", shards).version
    assert before == open_source(f"wds/{shards}/*.tar", shards).version
    write_shard(shards / "test-002.tar", {"a": {"png": png(picture(99))}})
    assert before != open_source(f"wds/{shards}/*.tar", shards).version


def test_bad_shards(shards: Path, picture) -> None:
    with pytest.raises(UserError, match=r"there is no '.*train-009\.tar'"):
        open_source(f"wds/{shards}/train-009.tar", shards).items()
    with pytest.raises(UserError, match="braces do not match"):
        open_source(f"wds/{shards}/train-{{000..001.tar", shards).items()
    write_shard(shards / "zipped.tar", {"a": {"png": png(picture())}}, compress=True)
    assert "not an uncompressed tar file" in (said := told(open_source(f"wds/{shards}/zipped.tar", shards)))
    assert said.startswith("error") and "It is compressed: unpack it with gunzip" in said
    write_shard(shards / "captions.tar", {"a": {"txt": b"only text"}})
    with pytest.raises(UserError, match="contain no image"):
        open_source(f"wds/{shards}/captions.tar", shards).items()
    write_shard(shards / "broken.tar", {"a": {"png": png(picture()), "json": b"{"}})
    assert "broken.tar:a.json is not JSON" in told(open_source(f"wds/{shards}/broken.tar", shards))

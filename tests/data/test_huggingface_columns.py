"""`hfds/`: which column is the image, which columns are labels and how they read, which splits are meant."""

from __future__ import annotations

import io
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import UnreadableImage
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.source import Source, open_source


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": png(start + n), "path": None} for n in range(count)]


def saved(folder: Path, columns: dict[str, list[Any]], features: dict[str, Any], split: str = "train") -> Path:
    """Write a set of one split by `save_to_disk`."""
    import datasets

    part = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict({split: part}).save_to_disk(str(folder))
    return folder


def with_label(folder: Path, values: list[Any], kind: Any) -> Source:
    """Return the source of a set with a label column of a type."""
    import datasets

    columns = {"image": images(len(values)), "label": values}
    saved(folder / "set", columns, {"image": datasets.Image(), "label": kind})
    return open_source(f"hfds/{folder}/set", folder)


def told(source: Source, severity: str) -> str:
    source.items()
    return "\n".join(str(finding) for finding in source.findings if finding.severity == severity)


LABELS: dict[str, tuple[pa.DataType, list[Any], list[str | None]]] = {
    "double": (pa.float64(), [1 / 3, float("nan"), None, 1e300], ["0.3333333333333333", None, None, "1e+300"]),
    "float": (pa.float32(), [0.5, 16777216.0], ["0.5", "16777216.0"]),
    "half": (pa.float16(), [np.float16(0.25), np.float16(1)], ["0.25", "1.0"]),
    "uint64": (pa.uint64(), [2**64 - 1, 0], ["18446744073709551615", "0"]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.20"), None], ["1.20", None]),
    "string": (pa.string(), ["a/b.c ü", " ", ""], ["a/b.c ü", None, None]),
    "large": (pa.large_string(), ["a"], ["a"]),
    "bool": (pa.bool_(), [True, None, False], ["True", None, "False"]),
    "null": (pa.null(), [None], [None]),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_types(name: str, tmp_path: Path) -> None:
    import datasets

    kind, values, texts = LABELS[name]
    table = pa.table({"image": pa.array([png(0)] * len(values)), "label": pa.array(values, kind)})
    datasets.DatasetDict({"train": datasets.Dataset(table)}).save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hfds/{tmp_path}/set", tmp_path, "image")
    assert [item.labels.get("label") for item in source.items()] == texts


def test_a_float_column_trains_a_regression(tmp_path: Path) -> None:
    import datasets

    columns = {"image": images(40), "score": [n + 0.1 for n in range(40)]}
    saved(tmp_path / "set", columns, {"image": datasets.Image(), "score": datasets.Value("float64")})
    task = Task(source=f"hfds/{tmp_path}/set", kind="regression")
    pool = build_pool(Data(root=str(tmp_path / "root")), {"score": task}, image_size=(8, 8))
    assert sorted(pool.targets["score"].values.ravel().tolist()) == pytest.approx([n + 0.1 for n in range(40)])


def test_columns_that_are_no_labels_are_named_with_their_type(tmp_path: Path) -> None:
    import datasets

    source = with_label(tmp_path, [[0], [1, 0]], datasets.List(datasets.ClassLabel(names=["a", "b"])))
    assert all(not item.labels for item in source.items())
    assert "no labels: label (List(ClassLabel(names=['a', 'b'])))" in told(source, "note")
    for task in (Task(source=f"hfds/{tmp_path}/set"), Task(source=f"hfds/{tmp_path}/set", label="label")):
        with pytest.raises(UserError, match=r"cannot be labels: label \(List\(ClassLabel.* as text or numbers"):
            build_pool(Data(root=str(tmp_path / "root")), {"t": task}, image_size=(8, 8))


def test_dates_are_no_labels(tmp_path: Path) -> None:
    import datetime

    import datasets

    source = with_label(tmp_path, [datetime.datetime(2020, 1, 1)], datasets.Value("timestamp[us]"))
    assert "label (timestamp[us])" in told(source, "note")


def test_a_class_without_a_name_is_an_error(tmp_path: Path) -> None:
    import datasets

    source = with_label(tmp_path, [0, 1], datasets.ClassLabel(names=["", "b"]))
    with pytest.raises(UserError, match="train, label: class 0 has an empty name"):
        source.items()


def two_images(folder: Path) -> str:
    import datasets

    kinds = {"depth": datasets.Image(), "picture": datasets.Image(), "label": datasets.Value("string")}
    saved(folder / "set", {"depth": images(2, 100), "picture": images(2), "label": ["a", "b"]}, kinds)
    return f"hfds/{folder}/set"


def test_several_image_columns_are_an_error_and_the_option_chooses(tmp_path: Path) -> None:
    name = two_images(tmp_path)
    with pytest.raises(UserError, match=r"several image columns, depth, picture: choose one with --tasks\.NAME\.image"):
        open_source(name, tmp_path).items()
    versions = set()
    for column, first in (("depth", 100), ("picture", 0)):
        source = open_source(name, tmp_path, column)
        items = source.items()
        assert source.read(items[1])[0, 0, 0] == first + 1 and items[1].labels == {"label": "b"}
        versions.add(source.version)
    assert len(versions) == 2
    with pytest.raises(UserError, match=r"unknown image column of .* 'pictur'\. Did you mean 'picture'"):
        open_source(name, tmp_path, "pictur").items()
    source = open_source(name, tmp_path, "label")  # texts may be paths
    with pytest.raises(UnreadableImage, match="there is no file 'a'"):
        source.read(source.items()[0])


@pytest.mark.parametrize("form", ["struct", "bytes", "paths", "relative"])
def test_columns_that_hold_images_in_other_types(form: str, tmp_path: Path) -> None:
    import datasets

    (tmp_path / "set").mkdir()
    for n in range(2):
        (tmp_path / "set" / f"{n}.png").write_bytes(png(n))
    values, kind = {
        "struct": (images(2), {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}),
        "bytes": ([png(0), png(1)], datasets.Value("binary")),
        "paths": ([str(tmp_path / "set" / f"{n}.png") for n in range(2)], datasets.Value("string")),
        "relative": (["0.png", "1.png"], datasets.Value("string")),
    }[form]
    name = f"hfds/{saved(tmp_path / 'set', {'x': values, 'n': [3, 4]}, {'x': kind, 'n': datasets.Value('int64')})}"
    with pytest.raises(UserError, match=r"no image column\. .* If x holds encoded images or paths, choose one with"):
        open_source(name, tmp_path).items()
    source = open_source(name, tmp_path, "x")
    items = source.items()
    assert [int(source.read(item)[0, 0, 0]) for item in items] == [0, 1]
    assert items[1].labels == {"n": "4"}
    with pytest.raises(UserError, match="column 'n' holds no images but int64"):
        open_source(name, tmp_path, "n").items()


def test_lists_of_images_are_refused(tmp_path: Path) -> None:
    import datasets

    columns = {"pictures": [images(2)], "n": [1]}
    saved(tmp_path / "set", columns, {"pictures": datasets.List(datasets.Image()), "n": datasets.Value("int64")})
    with pytest.raises(UserError, match=r"no image column\. Its columns are pictures \(List\(Image"):
        open_source(f"hfds/{tmp_path}/set", tmp_path).items()


def test_splits_with_different_columns_are_refused(tmp_path: Path) -> None:
    import datasets

    parts = {
        split: datasets.Dataset.from_dict({column: images(2)}, features=datasets.Features({column: datasets.Image()}))
        for split, column in (("train", "image"), ("test", "picture"))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"split test has no image column 'image' .* columns are picture"):
        open_source(f"hfds/{tmp_path}/set", tmp_path).items()


def test_a_saved_format_and_order_do_not_matter(tmp_path: Path) -> None:
    import datasets

    columns = {"image": images(4), "label": [0, 1, 2, 3]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    part = datasets.Dataset.from_dict(columns, features=kinds).select([3, 1]).with_format("numpy", columns=["label"])
    datasets.DatasetDict({"train": part}).save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hfds/{tmp_path}/set", tmp_path)
    assert [(i.labels["label"], int(source.read(i)[0, 0, 0])) for i in source.items()] == [("3", 3), ("1", 1)]


def test_splits_by_name(tmp_path: Path) -> None:
    import datasets

    kinds = datasets.Features({"image": datasets.Image()})
    parts = {
        split: datasets.Dataset.from_dict({"image": images(1)}, features=kinds)
        for split in ("train_clean", "test_other", "unsupervised")
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    source = open_source(f"hfds/{tmp_path}/set", tmp_path)
    assert [item.split for item in source.items()] == ["train", "test", None]
    assert "train_clean as train, test_other as test" in told(source, "note")
    assert "splits unsupervised (1 images) name neither train" in told(source, "warning")


def test_classes_are_folders_in_a_zip_file(tmp_path: Path) -> None:
    """`datasets` 5.2 takes the zip file's folder as the class, here `cat`."""
    (tmp_path / "cat").mkdir()
    with zipfile.ZipFile(tmp_path / "cat" / "train.zip", "w") as archive:
        for n in range(6):
            archive.writestr(f"{'cat' if n < 3 else 'dog'}/{n}.png", png(n))
    source = open_source(f"hfds/{tmp_path}/cat", tmp_path / "root")
    found = {int(source.read(item)[0, 0, 0]): item.labels["label"] for item in source.items()}
    assert found == {n: "cat" if n < 3 else "dog" for n in range(6)}


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for n in range(4):
        file = tmp_path / "set" / ("train" if n < 3 else "test") / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(n))
    source = open_source(f"hfds/{tmp_path}/set", tmp_path / "root")
    assert [(item.split, dict(item.labels)) for item in source.items()] == [("train", {})] * 3 + [("test", {})]
    assert source.unusable == {"label": "names of splits"}


def test_a_folder_with_a_table_of_numbers(tmp_path: Path) -> None:
    rows = ["file_name,age"]
    for n in range(3):
        (tmp_path / "set" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "train" / f"{n}.png").write_bytes(png(n))
        rows.append(f"{n}.png,{n + 0.5}")
    (tmp_path / "set" / "train" / "metadata.csv").write_text("\n".join(rows))
    source = open_source(f"hfds/{tmp_path}/set", tmp_path / "root")
    found = {int(source.read(item)[0, 0, 0]): item.labels["age"] for item in source.items()}
    assert found == {0: "0.5", 1: "1.5", 2: "2.5"}

"""Names of files and classes of any content, from a folder to every file that a run writes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.api.loaded_run import load_run
from vision_mtl.cli.command import main
from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.assemble import list_source
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.splits import _uniform
from vision_mtl.training.recorders import TensorBoard

LATIN1 = os.fsdecode(b"caf\xe9")
CLASSES = [
    "two\nlines",
    "u\u2028\u2029x",
    LATIN1,
    "\U0001f600",
    "\u202eRTL",
    " lead",
    "=cmd()",
    "\x1b[2J",
    'a"b,c;',
    "L" * 255,
]
FILES = [f"{LATIN1}.png", "a\nb.png", "N" * 251 + ".png", " x.png", "\u202ex.png", "tab\t.png", "\\x.png", "#1 (a).png"]


def draw(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / os.fsdecode(b"\xe9t\xe9")
    for number, name in enumerate(CLASSES):
        for place, file in enumerate(FILES):
            draw(folder / name / file, 10 * number + place)
    return folder


def test_splits_of_usual_names_have_not_moved() -> None:
    assert _uniform("folder/cars\0cat/größe 1.png", 0) == 0.988393511090731


def test_a_store_is_filled_and_found_again(odd: Path, tmp_path: Path) -> None:
    tasks = {"x": Task(source=f"folder/{odd}")}
    pool = build_pool(Data(root=str(tmp_path)), tasks, image_size=(8, 8))
    assert len(pool) == len(CLASSES) * len(FILES)
    assert sorted(pool.class_names["x"]) == sorted(map(valid_text, CLASSES))
    (store,) = (path for path in (tmp_path / "store").iterdir() if path.is_dir())
    before = (store / "images.npy").stat().st_mtime_ns
    again = build_pool(Data(root=str(tmp_path)), tasks, image_size=(8, 8))
    assert (store / "images.npy").stat().st_mtime_ns == before and again.identities == pool.identities
    json.dumps([pool.identities, pool.sources, pool.summary()]).encode()
    for text in (*pool.identities, *pool.sources):
        assert text == valid_text(text)


def test_a_stream_and_shards_give_the_same_classes(odd: Path, tmp_path: Path) -> None:
    words = ["--stage", "data", "--image_size", "8", "--data.root", str(tmp_path), "--data.num_pictures", "2"]
    first = [*words, "--tasks.x.source", f"folder/{odd}", "--data.to_shards", str(tmp_path / "shards")]
    assert main([*first, "--run_dir", str(tmp_path / "run")]) == 0
    data = Data(root=str(tmp_path), stream=True)
    pools = [
        build_pool(data, {"x": Task(source=source)}, image_size=(8, 8))
        for source in (f"folder/{odd}", f"wds/{tmp_path}/shards/*.tar")
    ]
    names = [sorted(pool.class_names["x"]) for pool in pools]
    assert names[0] == names[1] == sorted(map(valid_text, CLASSES))
    splits = [np.bincount(pool.split, minlength=3).tolist() for pool in pools]
    assert splits[0] == splits[1]


@pytest.mark.slow
def test_a_run_predicts_and_writes_them(odd: Path, tmp_path: Path, root: Path) -> None:
    words = ["--device", "cpu"]
    small = [
        "--image_size",
        "16",
        "--backbone.name",
        "test_resnet",
        "--runtime.precision",
        "fp32",
        "--data.root",
        str(root),
    ]
    small += ["--optim.steps", "1", "--optim.batch_size", "8", "--data.val_ratio", "0.2"]
    run, told = tmp_path / "run", tmp_path / "predict"
    assert (
        main(["--stage", "finetune", "--run_dir", str(run), "--tasks.x.source", f"folder/{odd}", *small, *words]) == 0
    )
    table = pq.read_table(run / "test_instances.parquet").to_pydict()
    assert set(table["true"]) <= set(map(valid_text, CLASSES))
    with (run / "tables" / "x.csv").open(newline="", encoding="utf-8") as file:
        found = {row["class"].removeprefix("'") for row in csv.DictReader(file)}
    assert found == set(map(valid_text, CLASSES))
    predicting = ["--stage", "predict", "--init_from", str(run), "--predict.images", str(odd), *words]
    assert main([*predicting, "--run_dir", str(told)]) == 0
    with (told / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["x"].removeprefix("'")) for row in csv.DictReader(file)]
    records = [
        (r["image"], r["tasks"]["x"]["class"]) for r in json.loads((told / "predictions.json").read_text("utf-8"))
    ]
    assert rows == records and len(rows) == len(CLASSES) * len(FILES)
    assert {image for image, _ in rows} == {valid_text(f"{odd}/{c}/{f}") for c in CLASSES for f in FILES}
    predictions = load_run(run, "cpu").predict(str(odd))
    assert set(predictions.names) == {image for image, _ in rows} and predictions._repr_html_().encode()


names = st.binary(min_size=1, max_size=12).filter(
    lambda b: not set(b"/\0") & set(b) and b not in (b".", b"..") and b[:1] != b"."
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.sets(names, min_size=1, max_size=4))
def test_any_folder_name_is_a_class(tmp_path_factory: pytest.TempPathFactory, found: set[bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for number, name in enumerate(found):
        draw(folder / os.fsdecode(name) / "a.png", number)
    source = f"folder/{folder}"
    try:
        items = list_source(source, Data(root=str(folder)), {"x": Task(source=source)}, Findings()).items
    except UserError:
        return
    assert {item.labels.get("label") for item in items} == {valid_text(os.fsdecode(name)) for name in found}
    assert all(item.path is not None and item.path.is_file() for item in items)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_tensorboard_has_a_line_for_each_image(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    import torch

    folder = tmp_path_factory.mktemp("board")
    board = TensorBoard(folder, 0)
    board.embedding(1, "features_x", torch.zeros(len(labels), 2), labels, torch.zeros(len(labels), 3, 4, 4))
    board.close()
    (file,) = folder.rglob("metadata.tsv")
    lines = file.read_text("utf-8").split("\n")
    assert len(lines) == len(labels) + 1 and lines[-1] == "" and all(line.strip() for line in lines[:-1])


@pytest.mark.parametrize(
    "make", [lambda p: f"folder/{p}/{'x' * 300}", lambda p: f"images/{p}/a\0b", lambda p: f"csv/{p}/\udce9"]
)
def test_a_path_that_cannot_be_is_one_error(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = make(tmp_path)
    with pytest.raises(UserError, match="there is no"):
        list_source(source, Data(root=str(tmp_path)), {"x": Task(source=source)}, Findings())

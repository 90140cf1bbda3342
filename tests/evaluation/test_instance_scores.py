"""`test_instances.parquet`: columns of every kind, files of earlier versions, and very many classes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.evaluation import instance_scores
from vision_mtl.evaluation.instance_scores import FILE, InstanceScores, read_instances, write_instances

NAMES = {"age": [], "tags": ["old", "red"], "pet": ["cat", "dog"], "outline": ["0", "7"]}
POOL = SimpleNamespace(class_names=NAMES, identities=["x/a.png", "x/b.png"], cluster=np.array([3, 5]))
VALUES = {
    "age": ("regression", np.array([1_700_000_001.0, 2.5]), np.array([[1_700_000_003.25], [1.0]])),
    "tags": ("multi_label", np.array([[0, 1], [0, 0]], np.int8), np.array([[0.25, 0.75], [0.5, 0.125]])),
    "pet": ("single_label", np.array([1, 0]), np.array([[0.25, 0.75], [0.375, 0.625]])),
    "outline": ("dense", np.array([0, 1]), np.array([[[5, 1], [2, 3]], [[7, 0], [0, 0]]])),
}


def scores_of(task: str) -> InstanceScores:
    kind_name, values, numbers = VALUES[task]
    kind = label_kind(kind_name)
    classes = {"true": values, "said": kind.decide(numbers)} if kind.one_class else {}
    columns = kind.instance_columns(numbers, values, NAMES[task])
    return InstanceScores(
        task, "head", 1.0, np.arange(2), kind.image_values(numbers, values), **classes, columns=columns
    )


def test_each_kind_has_its_columns(tmp_path: Path) -> None:
    write_instances(tmp_path, POOL, [scores_of(task) for task in VALUES])
    table = pq.read_table(tmp_path / FILE)
    rows = {(row["task"], row["identity"][2]): row for row in table.to_pylist()}
    assert rows["age", "a"]["true_number"] == 1_700_000_001 and rows["age", "a"]["said_number"] == 1_700_000_003.25
    assert (rows["tags", "a"]["true_classes"], rows["tags", "a"]["said_classes"]) == (["red"], ["red"])
    assert rows["tags", "b"]["true_classes"] == [] and rows["tags", "b"]["probabilities"] == [0.5, 0.125]
    assert (rows["pet", "b"]["true"], rows["pet", "b"]["said"]) == ("cat", "dog")
    assert rows["pet", "b"]["probabilities"] == [0.375, 0.625]
    outline = rows["outline", "a"]
    assert [outline[f"{name}_pixels"] for name in ("true", "said", "right")] == [[6, 5], [7, 4], [5, 3]]
    assert rows["age", "a"]["probabilities"] is None and rows["pet", "a"]["true_number"] is None
    assert json.loads(table.schema.metadata[b"class_names"]) == NAMES
    assert read_instances(tmp_path).of("pet", "head", 1.0).columns["value"].tolist() == [1.0, 0.0]


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    text = {name: pa.array(["a"], pa.string()) for name in ("task", "method", "identity", "true", "said")}
    old = {**text, "fraction": pa.array([1.0]), "cluster": pa.array([0]), "value": pa.array([0.5])}
    pq.write_table(pa.table(old), tmp_path / FILE)
    assert read_instances(tmp_path).columns["value"].tolist() == [0.5]


def test_too_many_probabilities_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_scores, "MOST_NUMBERS", 3)
    write_instances(tmp_path, POOL, [scores_of("pet")])
    rows = pq.read_table(tmp_path / FILE).to_pylist()
    assert [row["probabilities"] for row in rows] == [None, None] and rows[0]["said"] == "dog"

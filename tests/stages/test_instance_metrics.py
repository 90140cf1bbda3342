"""Every metric of `result.json` follows from `test_instances.parquet` by scikit-learn, for each kind of label."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)
from sklearn.preprocessing import LabelBinarizer, MultiLabelBinarizer

from vision_mtl.cli.command import main

COUNT, SIDE, START = 60, 24, 1_700_000_000  # seconds, which float32 would round to multiples of 128
FRACTION = "0.5"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command-line words of four tasks on one CSV file of images, tags, times and masks."""
    folder, random = tmp_path_factory.mktemp("kinds"), np.random.default_rng(0)
    lines = ["image,shape,tags,time,mask"]
    for n in range(COUNT):
        picture = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        picture[: 4 + n % 16, :, n % 3] += 120
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[: 4 + n % 16], mask[:, :2], mask[:4, 4 : 4 + n % 8] = 1, 255, 7
        tags = " ".join(tag for k, tag in enumerate(("red", "old", "big")) if (n >> k) & 1) or "none"
        Image.fromarray(picture).save(folder / f"{n:02}.png")
        Image.fromarray(mask).save(folder / f"m{n:02}.png")
        lines.append(f"{n:02}.png,c{n % 3},{tags},{START + n % 16},m{n:02}.png")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    kinds = {"shape": "single_label", "tags": "multi_label", "time": "regression", "mask": "dense"}
    found = ["--data.root", str(folder / "root"), "--data.test_ratio", "0.4", "--image_size", "32"]
    for name, kind in kinds.items():
        options = {"source": f"csv/{folder}/all.csv", "label": name, "kind": kind, "augment": "none"}
        found += [word for key, value in options.items() for word in (f"--tasks.{name}.{key}", value)]
    return found


def run_stage(
    stage: str, folder: Path, words: list[str], *more: str
) -> tuple[dict[str, Any], Any, dict[str, list[str]]]:
    """Return the metrics, the table of test images and the class names of a run."""
    start = ["--stage", stage, "--run_dir", str(folder), "--device", "cpu", "--backbone.name", "test_resnet"]
    assert main([*start, *words, *more]) == 0
    file = folder / "test_instances.parquet"
    names = json.loads(pq.read_schema(file).metadata[b"class_names"])
    return json.loads((folder / "result.json").read_text())["metrics"], pq.read_table(file).to_pandas(), names


def one_class(rows: Any, names: list[str]) -> dict[str, float]:
    true, said, numbers = rows["true"], rows["said"], np.stack(rows["probabilities"])
    assert [names[k] for k in numbers.argmax(1)] == said.tolist()
    occurring = sorted({*true, *said})
    found = {
        "accuracy": accuracy_score(true, said),
        "balanced_accuracy": balanced_accuracy_score(true, said),
        "macro_f1": f1_score(true, said, average="macro", labels=occurring),
        "calibration_error": calibration_error(true == said, numbers.max(1)),
    }
    if set(true) == set(names):
        found["auroc"] = roc_auc_score(LabelBinarizer().fit(names).transform(true), numbers, average="macro")
    return found


def calibration_error(right: Any, confidence: np.ndarray) -> float:
    """The gaps of scikit-learn's reliability curve, weighted by the images in each bin."""
    share, mean = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    return float((abs(share - mean) * counts[counts > 0]).sum() / len(confidence))


def several_classes(rows: Any, names: list[str]) -> dict[str, float]:
    encode = MultiLabelBinarizer(classes=names).fit([names])
    true, said = (encode.transform(rows[name]) for name in ("true_classes", "said_classes"))
    numbers = np.stack(rows["probabilities"])
    assert np.array_equal(numbers > 0.5, said)
    both = np.ptp(true, axis=0) > 0
    return {
        "accuracy": accuracy_score(true.ravel(), said.ravel()),
        "macro_f1": f1_score(true, said, average="macro", zero_division=0),
        "auroc": roc_auc_score(true[:, both], numbers[:, both], average="macro"),
    }


def number(rows: Any, names: list[str]) -> dict[str, float]:
    true, said = rows["true_number"], rows["said_number"]
    assert set(true) <= {float(START + n) for n in range(16)} and not names
    return {"mae": mean_absolute_error(true, said), "r2": r2_score(true - START, said - START)}


def pixels(rows: Any, names: list[str]) -> dict[str, float]:
    """From counts to labels of single pixels, which scikit-learn takes."""
    true, said, right = (np.stack(rows[f"{name}_pixels"]).sum(0) for name in ("true", "said", "right"))
    assert true.sum() == said.sum() == len(rows) * (32 * 32 - 32 * 3)  # the ignored pixels are in neither
    found = []
    for k in range(len(names)):
        each = np.repeat([(1, 1), (1, 0), (0, 1)], [right[k], true[k] - right[k], said[k] - right[k]], axis=0)
        found.append(jaccard_score(each[:, 0], each[:, 1]) if len(each) else np.nan)
    return {"mean_iou": float(np.nanmean(found)), "pixel_accuracy": float(right.sum() / true.sum())}


RECOMPUTE: dict[str, Callable[[Any, list[str]], dict[str, float]]] = {
    "shape": one_class,
    "tags": several_classes,
    "time": number,
    "mask": pixels,
}


def scores(found: dict[str, Any]) -> dict[str, float]:
    """The metrics of one method; other entries are no metrics."""
    entries = {name: score for name, score in found.items() if name != "minus_majority" and isinstance(score, dict)}
    return {name: score["value"] for name, score in entries.items() if "low" in score}


@pytest.mark.slow
def test_all_metrics_of_the_heads(words: list[str], tmp_path: Path) -> None:
    steps = ["--optim.steps", "8", "--optim.batch_size", "8", "--runtime.precision", "fp32"]
    metrics, table, names = run_stage("finetune", tmp_path / "run", words, *steps)
    for task, recompute in RECOMPUTE.items():
        rows = table[(table["task"] == task) & (table["method"] == "head")]
        assert recompute(rows, names[task]) == pytest.approx(scores(metrics["tasks"][task]), abs=1e-6)
    said = table[table["task"] == "time"]["said_number"]
    assert said.dtype == np.float64 and said.between(START - 100, START + 100).all() and said.nunique() == len(said)


@pytest.mark.slow
def test_all_metrics_of_every_probe(words: list[str], tmp_path: Path) -> None:
    more = ["--probe.fractions", FRACTION]
    words = words[: words.index("--tasks.mask.source")]
    metrics, table, names = run_stage("probe", tmp_path / "run", words, *more)
    for fraction, found in ((1.0, metrics["tasks"]), (0.5, metrics["fractions"][FRACTION]["tasks"])):
        for task, row in found.items():
            for method in {"linear", "knn", "head", "pixels"} & row.keys():
                rows = table[(table["task"] == task) & (table["method"] == method) & (table["fraction"] == fraction)]
                expected = RECOMPUTE[task](rows, names[task])
                assert expected == pytest.approx(scores(row[method]), abs=1e-6), (task, method)
    for method in ("linear", "knn"):  # as good as the labels are far apart: not rounded to multiples of 128
        assert metrics["tasks"]["time"][method]["mae"]["value"] < 12

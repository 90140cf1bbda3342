"""The saved heads of a probe predict the same as the probe itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.core.run import Run
from vision_mtl.evaluation.features import extract_features
from vision_mtl.evaluation.probing import score_prediction
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.inference_model import InferenceModel
from vision_mtl.recipes import build
from vision_mtl.recipes.probe_heads import fit_heads
from vision_mtl.recipes.probing import open_tasks


def test_every_kind_predicts_like_its_probe(label_table: Path, root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(label_table)
    source = "csv/labels.csv"
    tasks = {
        "letter": {"source": source, "label": "letter"},
        "tags": {"source": source, "label": "shade", "kind": "multi_label"},
        "size": {"source": source, "label": "size", "kind": "regression"},
    }
    file = {"tasks": tasks, "image_size": 32, "data": {"root": str(root), "val_ratio": 0.25}}
    config = resolve("probe", file | {"backbone": {"name": "test_resnet"}}, {})
    run = Run(tmp_path / "run", "probe")
    pool = build.open_pool(config, run)
    indices, probed = open_tasks(config, run, pool)
    torch.manual_seed(0)
    backbone = Backbone("test_resnet", image_size=(32, 32)).eval()
    predictions = fit_heads(run, config, pool, backbone, probed, extract_features(backbone, pool, indices))
    model, state = restore_model(str(run.folder))
    assert state["class_names"]["letter"] == ["a", "b", "c"]
    with torch.no_grad():
        saved = {task: numbers.numpy() for task, numbers in InferenceModel(model)(pool.gather(indices)).items()}
    for task, prediction in predictions.items():
        test, expected = saved[task][probed[task].test], prediction.prediction
        if task == "size":
            np.testing.assert_allclose(test[:, 0], expected, rtol=1e-3, atol=1e-3)
            assert np.ptp(expected) > 0.1
            continue
        logits = [
            np.log(p.clip(1e-30)) - (np.log1p(-p.clip(0, 1 - 1e-7)) if task == "tags" else 0) for p in (test, expected)
        ]
        if task == "letter":
            logits = [found - found.mean(1, keepdims=True) for found in logits]
        temperature = float(model.task_head(task).temperature)
        np.testing.assert_allclose(logits[0] * temperature, logits[1], rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_a_probe_predicts_and_exports(image_folder: Path, root: Path, tmp_path: Path, result, monkeypatch) -> None:
    monkeypatch.chdir(image_folder.parent)
    words = ["--stage", "probe", "--run_dir", str(tmp_path / "probe"), "--data.root", str(root), "--image_size", "32"]
    words += ["--tasks.shape.source", f"folder/{image_folder.name}", "--backbone.name", "test_resnet"]
    words += ["--device", "cpu", "--probe.fractions", "1.0", "--runtime.precision", "fp32"]
    assert main([*words, "--probe.embedding_images", "0"]) == 0
    row = result(tmp_path / "probe")["metrics"]["tasks"]["shape"]
    model, _ = restore_model(str(tmp_path / "probe"))
    config = resolve("probe", {}, {"init_from": [str(tmp_path / "probe")]})
    pool = build.open_pool(config, Run(tmp_path / "again", "probe"))
    indices, tasks = open_tasks(config, Run(tmp_path / "again", "probe"), pool)
    with torch.no_grad():
        said = InferenceModel(model)(pool.gather(indices))["shape"].numpy()
    answer = type("HeadSpec", (), {"prediction": said[tasks["shape"].test]})()
    accuracy = score_prediction(tasks["shape"], answer, pool.cluster[indices[tasks["shape"].test]])["accuracy"].value
    assert accuracy == pytest.approx(row["head"]["accuracy"]["value"], abs=1e-6)
    start = ["--init_from", str(tmp_path / "probe"), "--device", "cpu"]
    asked = ["--predict.images", str(image_folder / "round"), "--predict.num_pictures", "0"]
    assert main(["--stage", "predict", "--run_dir", str(tmp_path / "p"), *start, *asked]) == 0
    assert sum(result(tmp_path / "p")["metrics"]["answers"]["shape"].values()) == 40

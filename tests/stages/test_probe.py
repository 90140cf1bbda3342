"""`probe`: inherited options, choices on validation images, outputs, and errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.inference.restore import load_backbone
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes import build, probing
from vision_mtl.recipes.result_text import result_text
from vision_mtl.training.checkpoint import find_checkpoint, read_tensors


def probe(folder: Path, *words: str) -> int:
    return main(["--stage", "probe", "--run_dir", str(folder), "--device", "cpu", *words])


@pytest.fixture(scope="module")
def probed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "probed"
    assert probe(folder, "--init_from", str(trained), "--probe.fractions", "0.1", "0.5") == 0
    return folder


def found(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_every_method_is_scored_on_the_runs_own_tasks(probed: Path) -> None:
    result = found(probed)
    row = result["metrics"]["tasks"]["shape"]
    test = result["data"]["tasks"]["shape"]["test"]
    for method in ("linear", "knn", "linear_random_init", "pixels", "hog_knn", "chance", "majority"):
        score = row[method]["accuracy"]
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1 and score["n"] == test
    assert {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "calibration_error"} <= set(row["linear"])
    assert row["num_labelled"] == result["data"]["tasks"]["shape"]["train"] and row["fraction"] == 1
    difference = row["linear"]["accuracy"]["value"] - row["linear_random_init"]["accuracy"]["value"]
    assert row["linear_minus_random_init"]["accuracy"]["value"] == pytest.approx(difference)
    assert row["chosen"]["linear"]["pooling"] in ("mean", "max") and row["chosen"]["linear"]["C"] > 0
    assert row["chosen"]["knn"]["k"] in (1, 5, 10, 20)
    assert len(row["chosen"]["linear"]["tried"]) == 2 * len(Backbone("test_resnet", image_size=(32, 32)).channels)


def test_label_fractions_are_nested_and_kept(probed: Path) -> None:
    metrics = found(probed)["metrics"]
    kept = json.loads((probed / "fractions.json").read_text())
    assert list(metrics["fractions"]) == ["0.1", "0.5"] and list(kept) == ["0.1", "0.5", "1"]
    rows = [set(kept[f]["shape"]["indices"]) for f in ("0.1", "0.5", "1")]
    assert rows[0] < rows[1] < rows[2]
    for fraction in ("0.1", "0.5"):
        row = metrics["fractions"][fraction]["tasks"]["shape"]
        assert row["num_labelled"] == len(kept[fraction]["shape"]["identities"])
        assert row["requested"] == float(fraction) and row["fraction"] == kept[fraction]["shape"]["fraction"]
        assert {"linear", "knn", "linear_random_init", "hog_knn", "chance"} <= set(row)
        assert row["num_validation"] == len(kept[fraction]["shape"]["validation_indices"]) < 8


def test_tables_and_figures(probed: Path) -> None:
    with (probed / "tables" / "shape.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["round", "square"]
    score = found(probed)["metrics"]["tasks"]["shape"]["linear"]
    hits = sum(float(row["recall"]) * int(row["n"]) for row in rows)
    assert hits / sum(int(row["n"]) for row in rows) == pytest.approx(score["accuracy"]["value"], abs=1e-5)
    assert {f.stem for f in (probed / "figures").iterdir()} == {"scores_accuracy", "confusion_shape", "embedding_shape"}


def test_the_report_is_a_table(probed: Path) -> None:
    lines = result_text(found(probed)).splitlines()
    assert "linear probe" in lines[1] and "majority" in lines[1] and max(map(len, lines)) <= 120
    assert len([line for line in lines if line.strip().startswith("shape")]) == 3


@pytest.mark.slow
def test_crops_are_of_learned_and_random_features_only(
    probed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = probing.extract_maps

    def extract_maps(*given: object, **options: object) -> dict:
        asked.append(options["crops"])
        return original(*given, **options)

    monkeypatch.setattr(probing, "extract_maps", extract_maps)
    words = ["--init_from", str(trained), "--probe.fractions", "0.1", "0.5", "--probe.crops", "3"]
    assert probe(tmp_path / "p", *words) == 0
    rows = [found(folder)["metrics"]["tasks"]["shape"] for folder in (tmp_path / "p", probed)]
    assert asked == [3, 3]  # the run's weights and random ones
    for method in ("pixels", "hog_knn", "head", "majority"):
        assert rows[0][method] == rows[1][method]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result(probed: Path, trained: Path, tmp_path: Path) -> None:
    assert probe(tmp_path / "p", "--init_from", str(trained), "--probe.fractions", "0.1", "0.5") == 0
    assert found(tmp_path / "p")["metrics"] == found(probed)["metrics"]


@pytest.mark.slow
def test_test_labels_change_no_choice(
    probed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = build.build_pool

    def spoiled(*args: object, **options: object) -> Pool:
        pool = original(*args, **options)
        rows = pool.indices("test", task="shape").numpy()
        pool.labels["shape"][rows] = np.random.default_rng(0).permutation(pool.labels["shape"][rows])
        return pool

    monkeypatch.setattr(build, "build_pool", spoiled)
    assert probe(tmp_path / "p", "--init_from", str(trained), "--probe.fractions", "0.1", "0.5") == 0
    rows = [found(folder)["metrics"]["tasks"]["shape"] for folder in (tmp_path / "p", probed)]
    assert rows[0]["chosen"] == rows[1]["chosen"] and rows[0]["linear"] != rows[1]["linear"]


def test_the_runs_backbone_is_loaded_completely(trained: Path) -> None:
    backbone = Backbone("test_resnet", image_size=(32, 32))
    path = find_checkpoint(trained)
    load_backbone(backbone, path)
    tensors = read_tensors(path, "average") or read_tensors(path, "model")
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, tensors[f"backbone.{name}"])
    with pytest.raises(UserError, match="are of backbone 'test_resnet' and do not fit"):
        load_backbone(Backbone("resnet18", image_size=(32, 32)), path)


def test_tasks_are_inherited_unless_others_are_given(trained: Path) -> None:
    own = resolve("probe", {}, {"init_from": [str(trained)]})
    assert list(own.tasks) == ["shape"] and own.backbone.name == "test_resnet" and own.image_size == (32, 32)
    assert own.pretexts == {} and not {"pretexts", "decoder"} & own.to_dict().keys()
    other = resolve("probe", {}, {"init_from": [str(trained)], "tasks.faces.source": ["bundled/faces"]})
    assert list(other.tasks) == ["faces"] and other.data.unlabelled == []
    assert resolve("probe", {}, {"probe.fractions": ["0.2"]}).options.fractions == [0.2]


@pytest.mark.slow
def test_random_weights_are_probed_with_a_warning(image_folder: Path, root: Path, tmp_path: Path) -> None:
    words = ["--tasks.shape.source", f"folder/{image_folder}", "--data.root", str(root), "--image_size", "32"]
    words += ["--backbone.name", "vit_tiny_patch16_224", "--probe.embedding_images", "0", "--probe.fractions", "0.001"]
    assert probe(tmp_path / "p", *words) == 0
    result = found(tmp_path / "p")
    row = result["metrics"]["tasks"]["shape"]
    assert row["linear"] == row["linear_random_init"] and "linear_minus_random_init" not in row
    assert "pixels" not in row  # the reference of convolutional backbones
    assert any("with random weights" in text for text in result["warnings"])
    assert any("one image of each of 2 classes makes it 2" in text for text in result["warnings"])
    assert not (tmp_path / "p" / "figures" / "embedding_shape.png").exists()


def test_what_cannot_be_probed_is_an_error(
    trained: Path, image_folder: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--init_from", str(trained)]
    assert probe(tmp_path / "a", "--data.unlabelled", f"images/{image_folder}", "--data.root", str(root), *start) == 2
    assert "probe needs a labelled task: give --tasks.NAME.source" in capsys.readouterr().err
    assert probe(tmp_path / "b", "--probe.fractions", "1.5", *start) == 2
    assert "a label fraction must lie in (0, 1]; found 1.5" in capsys.readouterr().err
    assert probe(tmp_path / "c", "--probe.poolings", "median", *start) == 2
    assert "unknown value of probe.poolings" in capsys.readouterr().err
    assert probe(tmp_path / "d", "--probe.crops", "0", *start) == 2
    assert "probe.crops must be 1 (the whole image) or more; found 0." in capsys.readouterr().err

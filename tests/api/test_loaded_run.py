"""`load_run` and what a run says of itself; `embed` and `predict`; images in every form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vision_mtl
from vision_mtl.api.loaded_run import LoadedRun
from vision_mtl.cli.command import main
from vision_mtl.core.errors import UserError


def test_a_run_says_what_it_is(pretrained: LoadedRun) -> None:
    assert pretrained.stage == "pretrain" and pretrained.config["backbone"]["name"] == "test_resnet"
    assert not pretrained.model.training and pretrained.result.status == "completed"
    assert pretrained.runs == {} and "repairs" in pretrained.figures
    page = pretrained._repr_html_()
    assert "test_resnet" in page and "skill.grid_mask" in page and len(page) < 20_000


def test_scores_carry_their_interval(pretrained: LoadedRun) -> None:
    written = json.loads((pretrained.folder / "result.json").read_text())["metrics"]["skill"]["downsample"]
    found = pretrained.result["skill.downsample"]
    assert found.to_json() == written
    assert pretrained.result.scores.loc["skill.downsample", "value"] == written["value"]
    with pytest.raises(UserError, match=r"Did you mean 'skill\.downsample'"):
        pretrained.result["skill.downsampel"]


def test_figures_open_and_show_small(pretrained: LoadedRun) -> None:
    figure = pretrained.figures["repairs"]
    assert figure.path.is_file() and figure.open().width > 300
    assert figure._repr_html_().startswith("<img") and len(figure._repr_html_()) < 300_000
    with pytest.raises(UserError, match="Did you mean 'repairs'"):
        pretrained.figures["repair"]


def test_names_are_escaped(many_headed: Callable[..., Path], tmp_path: Path) -> None:
    run = vision_mtl.load_run(many_headed(tmp_path / "<b>&run"), device="cpu")
    assert "&lt;b&gt;&amp;run" in run._repr_html_() and "<b>&run" not in run._repr_html_()


def test_images_come_in_every_form(pretrained: LoadedRun, photos: Path) -> None:
    path = photos / "03.png"
    array = np.asarray(Image.open(path))
    wanted = pretrained.images(path)
    assert wanted.shape == (1, 3, 32, 32) and wanted.min() >= 0 and wanted.max() <= 1
    alpha = np.concatenate([array, np.zeros_like(array[..., :1])], axis=2)
    for same in (str(path), Image.open(path), array, array[None], alpha, wanted, [wanted], [Image.fromarray(array)]):
        assert torch.equal(pretrained.images(same), wanted)
    grey = pretrained.images(array[..., 0])
    assert grey.shape == (1, 3, 32, 32) and torch.equal(grey[:, 0], grey[:, 2])
    assert len(pretrained.images(photos)) == 12 and len(pretrained.images([photos, array])) == 13


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no image was given"),
        (3, "found int"),
        (np.zeros((8, 8, 3), complex), r"found complex128 array of shape \(8, 8, 3\)"),
        (np.zeros((8, 8, 3)), r"its float64 values have no declared maximum.*declare value_range"),
        (np.zeros((8, 8, 5), np.uint8), "5 channels"),
        (torch.zeros(1, 3, 16, 16), r"\(B, 3, 32, 32\), the model's; found float32 \(1, 3, 16, 16\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "found uint8"),
        (torch.full((1, 3, 32, 32), 2.0), r"must lie in \[0, 1\], without NaN; found 2 to 2"),
        (torch.full((1, 3, 32, 32), torch.nan), "without NaN; found nan"),
        ("nowhere.png", "there is no 'nowhere.png'"),
    ],
)
def test_other_images_are_refused(pretrained: LoadedRun, given: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        pretrained.images(given)


def test_a_runs_own_images_are_held_out_ones(
    pretrained: LoadedRun, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    found = pretrained.samples(3)
    held_out = pretrained.pool.gather(pretrained.pool.indices("test"))
    assert found.shape == (3, 3, 32, 32) and all((held_out == one).flatten(1).all(1).any() for one in found)
    assert torch.equal(pretrained.images(found), found)
    with pytest.raises(UserError, match="Did you mean 'test'"):
        pretrained.samples(split="tests")


def test_an_unreadable_file_is_named(pretrained: LoadedRun, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of 1 images cannot be read:\n.*broken\.png: not an image"):
        pretrained.embed(tmp_path)


def test_embeddings_are_the_backbones(pretrained: LoadedRun, photos: Path) -> None:
    images = pretrained.images(photos)
    with torch.no_grad():
        wanted = pretrained.model.backbone.embed(images)
    assert torch.allclose(pretrained.embed(photos), wanted, atol=1e-5)


def test_answers_are_those_of_the_stage(many_headed: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    folder = many_headed(tmp_path / "trained")
    words = ["--stage", "predict", "--init_from", folder, "--run_dir", tmp_path / "said", "--predict.images", photos]
    assert main([*map(str, words), "--device", "cpu", "--runtime.precision", "fp32"]) == 0
    written = json.loads((tmp_path / "said" / "predictions.json").read_text())
    found = vision_mtl.load_run(folder, device="cpu").predict(photos)
    assert found.names == [record["image"] for record in written] and len(found) == 12
    for own, record in zip(found, written, strict=True):
        theirs = record["tasks"]
        assert own["shape"]["class"] == theirs["shape"]["class"] and own["tags"]["classes"] == theirs["tags"]["classes"]
        assert own["shape"]["probabilities"] == pytest.approx(theirs["shape"]["probabilities"], abs=1e-5)
        assert own["age"]["value"] == pytest.approx(theirs["age"]["value"], abs=1e-3)
        assert own["layout"]["mask"].shape == (32, 48) and set(np.unique(own["layout"]["mask"])) <= {0, 7, 200}
    assert found.class_names["shape"] == ["flat", "round", "square"]
    assert found.probabilities("shape").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert "<img" in found._repr_html_() and "05.png" in found._repr_html_()
    with pytest.raises(UserError, match="unknown task with classes 'age'"):
        found.probabilities("age")


def test_what_is_not_there_is_said(
    pretrained: LoadedRun, many_headed: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no head for any task"):
        pretrained.predict(photos)
    headed = vision_mtl.load_run(many_headed(tmp_path / "trained"), device="cpu")
    with pytest.raises(UserError, match="no head for pretext 'blur': it was trained on none"):
        headed.reconstruct(photos, "blur")
    with pytest.raises(UserError, match=r"has no result\.json yet"):
        headed.result  # noqa: B018
    with pytest.raises(UserError, match="is no study but a run of pretrain"):
        pretrained.report  # noqa: B018
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        vision_mtl.load_run(tmp_path / "empty")
    with pytest.raises(UserError, match="Did you mean"):
        vision_mtl.load_run(tmp_path / "emty")

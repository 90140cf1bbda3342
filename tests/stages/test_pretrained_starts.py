"""Every stage starts from pretrained weights: recorded, resumed without their file, handed on, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from vision_mtl.core.run import Run
from vision_mtl.inference.restore import restore_model
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes.start import start_network
from vision_mtl.study.runner import finished

FREE = ["--decoder.width", 8, "--track.num_probes", 0, "--track.num_pictures", 0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of test_resnet's weights, with another model's tensors beside them."""
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"model": state | {"decoder.weight": torch.rand(2)}}, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def pretrain(supervise, images: Path, folder: Path, *words: object) -> int:
    given = ["--data.unlabelled", f"images/{images}", *FREE, "--optim.batch_size", 8]
    return supervise("pretrain", folder, *given, *words)


def test_a_run_starts_from_a_file_and_resumes_without_it(
    supervise, image_folder: Path, interrupt_at, file: Path, tmp_path: Path, result, capsys
) -> None:
    first = ["--backbone.pretrained", file, "--backbone.input_size", 64, "--optim.steps", 3]
    interrupt_at(2)
    assert pretrain(supervise, image_folder, tmp_path / "run", *first) == 130
    interrupt_at(None)
    said = capsys.readouterr().err
    assert (
        "the backbone starts from the file net.pth (sha256 " in said and "that are not used: 1 (decoder.weight)" in said
    )
    content = file.read_bytes()
    file.unlink()
    assert pretrain(supervise, image_folder, tmp_path / "run", *first) == 0
    found = result(tmp_path / "run")
    assert found["weights"]["path"] == str(file) and found["weights"]["source"] == "file"
    assert any("does not exist" in text and "resumes from its checkpoint" in text for text in found["warnings"])
    assert pretrain(supervise, image_folder, tmp_path / "run", *first) == 0  # completed: nothing needs the file
    model, state = restore_model(str(tmp_path / "run"))
    assert model.backbone.input_size == (64, 64) and state["weights"] == found["weights"] == model.backbone.weights

    # the start is known only while the file is the same
    run = Run(tmp_path / "reader", "reconstruct")
    assert start_network(str(tmp_path / "run"), run) is None and "does not exist" in run.warnings[-1]
    file.write_bytes(content)
    start = start_network(str(tmp_path / "run"), run)
    assert start is not None
    kernels = Backbone("test_resnet", str(file), image_size=(32, 32)).model.state_dict()
    assert all(torch.equal(value, kernels[key]) for key, value in start.backbone.model.state_dict().items())
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    assert start_network(str(tmp_path / "run"), run) is None and "are not those that the run" in run.warnings[-1]


def test_what_follows_inherits_weights_and_size(
    supervise, image_folder: Path, table_tasks, file: Path, tmp_path: Path, result, capsys
) -> None:
    words = ["--backbone.pretrained", file, "--backbone.input_size", 48, "--optim.steps", 1]
    assert pretrain(supervise, image_folder, tmp_path / "run", *words) == 0
    start = ["--init_from", tmp_path / "run", "--optim.steps", 1, *table_tasks("letter", "seen")]
    file.unlink()  # the weights come from the run
    tuned = tmp_path / "tuned"
    assert supervise("finetune", tuned, *start, "--backbone.pretrained", file, backbone=False) == 0
    assert result(tuned)["weights"] == result(tmp_path / "run")["weights"]
    assert restore_model(str(tuned))[0].backbone.input_size == (48, 48)
    wrong = ["--backbone.input_size", 96]
    assert supervise("finetune", tmp_path / "other", *start, *wrong, backbone=False) == 2
    assert "--backbone.input_size 96 contradicts --init_from" in capsys.readouterr().err


def test_probe_and_finetune_take_a_file(supervise, table_tasks, file: Path, tmp_path: Path, result) -> None:
    tasks, weights = table_tasks("letter"), ["--backbone.pretrained", file]
    for stage, words in (("finetune", ["--optim.steps", 1]), ("joint", ["--optim.steps", 1, *FREE])):
        assert supervise(stage, tmp_path / stage, *tasks, *weights, *words) == 0
        assert result(tmp_path / stage)["weights"]["source"] == "file"


def test_a_probe_has_a_random_baseline_of_its_own(supervise_probe, file: Path, tmp_path: Path, result) -> None:
    assert supervise_probe(tmp_path / "probe", "--backbone.pretrained", file) == 0
    found = result(tmp_path / "probe")
    assert found["weights"]["below"] == "model." and "random weights" not in " ".join(found["warnings"])
    assert "linear_random_init" in found["metrics"]["tasks"]["letter"]
    published = torch.load(file, weights_only=True)["model"]
    kept = restore_model(str(tmp_path / "probe"))[0].backbone.model.state_dict()
    assert all(torch.equal(value, published[key]) for key, value in kept.items()), "BatchNorm's statistics included"


@pytest.fixture
def supervise_probe(root: Path, table_tasks):
    from vision_mtl.cli.command import main

    def run(folder: Path, *words: object) -> int:
        given = ["--stage", "probe", "--run_dir", folder, "--data.root", root, "--device", "cpu", "--image_size", 32]
        given += ["--backbone.name", "test_resnet", "--runtime.precision", "fp32", "--probe.fractions", 1.0]
        return main([str(word) for word in [*given, *table_tasks("letter"), *words]])

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "decoder"), [("test_resnet", "stages"), ("test_vit", "transformer")])
def test_enlarged_images_through_every_stage(
    name: str, decoder: str, supervise, image_folder: Path, table_tasks, tmp_path: Path, result
) -> None:
    """A ViT encodes visible tokens only; predictions from the exported graphs equal those of the run."""
    from vision_mtl.cli.command import main

    own = ["--backbone.name", name, "--backbone.input_size", 112 if name == "test_resnet" else 80]
    own += ["--decoder.name", decoder, "--decoder.width", 24, "--pretexts.grid_mask.grid", 4]
    own += ["--pretexts.grid_mask.hidden", "ratio"]
    images = ["--data.unlabelled", f"images/{image_folder}", "--track.num_probes", 0, "--optim.steps", 2]
    assert supervise("pretrain", tmp_path / "p", *own, *images) == 0
    assert set(result(tmp_path / "p")["metrics"]["skill"]) == {"grid_mask", "decolorise", "downsample", "contrast"}
    tasks = [*table_tasks("letter", "seen"), "--optim.steps", 2]
    assert supervise("finetune", tmp_path / "f", *tasks, "--init_from", tmp_path / "p", backbone=False) == 0
    picture = next(image_folder.rglob("*.png"))
    words = ["--stage", "predict", "--init_from", tmp_path / "f", "--predict.images", picture]
    assert main([str(w) for w in [*words, "--run_dir", tmp_path / "q", "--device", "cpu"]]) == 0
    words = ["--stage", "export", "--init_from", tmp_path / "f", "--run_dir", tmp_path / "e"]
    assert main([str(word) for word in words]) == 0
    found = result(tmp_path / "e")["metrics"]
    assert max(found["differences"].values()) < 1e-4 and finished(tmp_path / "e")
    config = json.loads((tmp_path / "e" / "backbone" / "config.json").read_text())
    side = 112 if name == "test_resnet" else 80
    assert config["pretrained_cfg"]["input_size"] == [3, side, side]
    card = (tmp_path / "e" / "MODEL_CARD.md").read_text()
    assert f"enlarged to {side} x {side} pixels" in card and "torch.nn.functional.interpolate" in card
    assert Image.open(picture).size == (40, 40)

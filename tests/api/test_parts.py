"""The parts of pretraining compose in a program of one's own, and are the command line's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vision_mtl as vm
from vision_mtl.cli.command import main
from vision_mtl.training.options import Optim, Track


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> vm.api.parts.RepairModel:
    return vm.build_model("test_resnet", size=32, pretexts=[vm.GridMask(grid=4), vm.Decolorise()])


class Pictures(torch.utils.data.Dataset):
    """Items as torchvision's sets give them: a picture and a label."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.full((20, 30, 3), 50 * number, np.uint8)), number


def test_images_from_a_source_a_dataset_a_tensor_and_an_array(
    images: torch.Tensor, image_folder: Path, root: Path
) -> None:
    pool = vm.open_images(f"images/{image_folder}", size=32, root=root)
    assert len(pool) == 80 and len(pool.indices("test")) > 0 and pool.shape == (3, 32, 32)
    dataset = vm.open_images(Pictures(), size="16,24")
    assert dataset.shape == (3, 16, 24) and len(dataset.indices("train")) == 5
    assert torch.allclose(dataset.gather(torch.tensor([2])), torch.tensor(100 / 255))
    tensor = vm.open_images(images, size=32)
    assert torch.allclose(tensor.gather(torch.arange(12)), images, atol=0.5 / 255 + 1e-6)
    grey = vm.open_images(np.zeros((3, 40, 40, 1), np.uint8), size=16, channels=1)
    assert grey.shape == (1, 16, 16) and len(grey) == 3


def test_a_file_that_cannot_be_read_is_refused_or_left_out_with_a_warning(image_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "images")
    (folder / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(vm.UserError, match=r"broken\.png"):
        vm.open_images(f"images/{folder}", size=32, root=tmp_path)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        pool = vm.open_images(f"images/{folder}", size=32, root=tmp_path, skip_unreadable=True)
    assert len(pool) == 80


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "a torch Dataset with a length"),
        (torch.rand(3, 3, 8, 8), r"shape \(B, 3, 64, 64\)"),
        ("nowhere", "KIND/REST"),
    ],
)
def test_other_images_are_refused(given: object, message: str) -> None:
    with pytest.raises(vm.UserError, match=message):
        vm.open_images(given)


def test_the_repair_loss_is_near_one_has_a_gradient_and_draws_anew(
    model: vm.api.parts.RepairModel, images: torch.Tensor
) -> None:
    losses = [vm.repair_loss(model, images) for _ in range(3)]
    assert all(loss.ndim == 0 and 0.5 < float(loss.detach()) < 2 for loss in losses)
    assert len({float(loss.detach()) for loss in losses}) == 3
    losses[0].backward()
    assert sum(float(p.grad.abs().sum()) for p in model.backbone.parameters() if p.grad is not None) > 0
    model.eval()
    repeated = [float(vm.repair_loss(model, images, step=5).detach()) for _ in range(2)]
    assert repeated[0] == repeated[1] != float(vm.repair_loss(model, images, step=6).detach())


def test_a_loop_of_ones_own_lowers_the_loss(images: torch.Tensor) -> None:
    model = vm.build_model("test_resnet", size=32, pretexts=["downsample"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    before = np.mean([float(vm.repair_loss(model, images, step=step).detach()) for step in range(4)])
    for _ in range(30):
        optimiser.zero_grad()
        vm.repair_loss(model, images).backward()
        optimiser.step()
    assert np.mean([float(vm.repair_loss(model, images, step=step).detach()) for step in range(4)]) < before


def test_the_trainer_writes_nothing_unless_told_where(
    model: vm.api.parts.RepairModel, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: list[int] = []
    trainer = vm.Trainer(model, vm.open_images(images, size=32), steps=3, batch_size=4, device="cpu")
    assert trainer.fit(lambda progress, record: steps.append(progress.step)) is model
    assert steps == [1, 2, 3] and len(trainer.records) == 3 and not list(tmp_path.iterdir())
    assert model.embed(images).shape == (12, model.backbone.num_features)


def test_a_run_in_a_folder_resumes_opens_and_starts_a_stage(image_folder: Path, root: Path, tmp_path: Path) -> None:
    pool = vm.open_images(f"images/{image_folder}", size=32, root=root)
    often = Track(checkpoint_every_seconds=1e-6)
    options = {"batch_size": 4, "device": "cpu", "run_dir": tmp_path / "run", "console": "quiet", "track": often}

    def build() -> vm.api.parts.RepairModel:
        return vm.build_model("test_resnet", size=32, pretexts=[vm.GridMask(grid=2)])

    class Enough(Exception):
        pass

    def stop(progress: object, record: object) -> None:
        if progress.step == 3:
            raise Enough

    with pytest.raises(Enough):
        vm.Trainer(build(), pool, steps=4, **options).fit(stop)
    resumed = vm.Trainer(build(), pool, steps=4, **options)
    resumed.fit()
    whole = vm.Trainer(build(), pool, steps=4, **(options | {"run_dir": None}))
    whole.fit()
    assert [record.step for record in resumed.records] == [3]  # steps are counted from 0
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    run = vm.load_run(tmp_path / "run", device="cpu")
    assert run.result.status == "completed"
    assert torch.equal(run.model.backbone.state_dict()["mean"], whole.model.backbone.mean)
    words = ["--stage", "probe", "--init_from", str(tmp_path / "run"), "--tasks.shape.source", f"folder/{image_folder}"]
    words += ["--data.root", str(root), "--run_dir", str(tmp_path / "probe"), "--device", "cpu", "--console", "quiet"]
    assert main(words) == 0


def test_a_folder_of_another_run_is_refused(image_folder: Path, root: Path, tmp_path: Path) -> None:
    pool = vm.open_images(f"images/{image_folder}", size=32, root=root)

    def train(**options: Any) -> vm.Trainer:
        model = vm.build_model("test_resnet", size=32, pretexts=[vm.GridMask(grid=options.pop("grid", 2))])
        given = {"steps": 2, "batch_size": 4, "device": "cpu", "run_dir": tmp_path / "run", "console": "quiet"}
        trainer = vm.Trainer(model, pool, **(given | options))
        trainer.fit()
        return trainer

    train()
    result = (tmp_path / "run" / "result.json").read_text()
    for options, line in (
        ({"batch_size": 8}, "optim.batch_size: 4 there, 8 here"),
        ({"weight_decay": 0.5}, "optim.weight_decay: 0.05 there, 0.5 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"grid": 4}, "pretexts.grid_mask.grid: "),
        ({"steps": 1}, "optim.steps: 2 there, 1 here"),
    ):
        with pytest.raises(vm.UserError, match="holds another run; these options differ") as error:
            train(**options)
        assert line in str(error.value) and (tmp_path / "run" / "result.json").read_text() == result
    assert train().records == []  # nothing is left to do
    assert [record.step for record in train(steps=3).records] == [2]
    assert "extended from 2 to 3 steps" in (tmp_path / "run" / "result.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(vm.UserError, match=r"holds other files \(mine.txt"):
        train(run_dir=tmp_path / "other")


def test_the_loop_is_the_command_lines_own(image_folder: Path, root: Path, tmp_path: Path) -> None:
    """Equal images, seed and options give equal weights, bit for bit."""
    words = ["--stage", "pretrain", "--data.unlabelled", f"images/{image_folder}", "--data.root", str(root)]
    words += ["--image_size", "32", "--backbone.name", "test_resnet", "--optim.steps", "3", "--optim.batch_size", "8"]
    words += ["--device", "cpu", "--run_dir", str(tmp_path / "run"), "--console", "quiet"]
    words += ["--pretexts.contrast.weight", "0", "--optim.learning_rate", str(Optim.learning_rate)]
    assert main(words) == 0
    model = vm.build_model("test_resnet", size=32)
    vm.Trainer(
        model, vm.open_images(f"images/{image_folder}", size=32, root=root), steps=3, batch_size=8, device="cpu"
    ).fit()
    for name, value in vm.load_run(tmp_path / "run", device="cpu").model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretexts": []}, "at least one pretext"),
        ({"pretexts": [vm.GridMask(), vm.GridMask(grid=2)]}, "grid_mask is given twice"),
        ({"pretexts": ["grid_msk"]}, "Did you mean 'grid_mask'"),
        ({"backbone": "resnet1"}, "resnet1"),
        ({"decoder": "stage"}, "Did you mean 'stages'"),
        ({"channels": 1}, "decolorise"),
    ],
)
def test_models_that_cannot_be_built_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(vm.UserError, match=message):
        vm.build_model(**({"backbone": "test_resnet", "size": 32} | options))

"""Every stage as a Python function: keywords become options, the finished run comes back."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import vision_mtl as vm
from vision_mtl.api.stage_functions import nested_options
from vision_mtl.config.stage import STAGES

SMALL = {"backbone": "test_resnet", "size": 32, "steps": 2, "batch_size": 8, "device": "cpu", "console": "quiet"}


def test_keywords_become_the_nested_options_of_a_file(tmp_path: Path) -> None:
    given = {
        "unlabelled": "images/a",
        "backbone": "resnet18",
        "steps": 5,
        "optim": {"weight_decay": 0.1},
        "tasks": {"pets": "folder/p", "cars": {"source": "folder/c", "kind": "dense"}},
        "pretexts": ["rotation", vm.GridMask(grid=2)],
        "seed": 3,
        "selection": tmp_path / "s.parquet",
        "init_from": tmp_path,
    }
    found = nested_options("pretrain", given)
    assert found["data"] == {"unlabelled": "images/a"} and found["backbone"] == {"name": "resnet18"}
    assert found["optim"] == {"steps": 5, "weight_decay": 0.1} and found["seed"] == 3
    assert found["tasks"] == {"pets": {"source": "folder/p"}, "cars": {"source": "folder/c", "kind": "dense"}}
    assert found["pretexts"]["rotation"] == {} and found["pretexts"]["grid_mask"]["grid"] == 2
    assert found["pretrain"] == {"selection": str(tmp_path / "s.parquet")} and found["init_from"] == str(tmp_path)
    assert nested_options("pretrain", {"backbone": {"name": "x", "in_chans": 1}})["backbone"]["in_chans"] == 1
    short, section = {"backbone": "x", "pretrained": tmp_path}, {"name": "x", "pretrained": str(tmp_path)}
    assert nested_options("pretrain", short)["backbone"] == section
    assert nested_options("pretrain", {"backbone": {"name": "x", "pretrained": tmp_path}})["backbone"] == section


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbon": "x"}, r"unknown option 'backbon'\. Did you mean 'backbone"),
        ({"steps": 2, "optim": {"steps": 3}}, r"option optim\.steps is given twice"),
        ({"label_fraction": 0.5}, "unknown option 'label_fraction'"),
        ({"balance": {"name": "dwa"}}, r"unknown option 'balance\.name' for stage pretrain"),
        ({"tasks": {"pets": {"sauce": "folder/p"}}}, r"Did you mean 'tasks\.pets\.source'"),
        ({"steps": "many"}, r"option optim\.steps must be a whole number or null; found 'many'"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(vm.UserError, match=message):
        vm.pretrain(**options)


def test_a_pipeline_of_stages_returns_runs(image_folder: Path, root: Path, tmp_path: Path) -> None:
    first = vm.pretrain(
        unlabelled=f"images/{image_folder}",
        data={"root": str(root)},
        pretexts=["grid_mask"],
        run_dir=tmp_path / "a",
        **SMALL,
    )
    assert first.stage == "pretrain" and first.result["skill.grid_mask"].n > 0
    tasks = {"shape": f"folder/{image_folder}"}
    second = vm.finetune(
        init_from=first, tasks=tasks, data={"root": str(root)}, label_fraction=0.5, run_dir=tmp_path / "b", steps=2,
        batch_size=8, device="cpu", console="quiet",
    )  # fmt: skip
    assert 0 <= second.result["tasks.shape.accuracy"].value <= 1
    assert second.config["finetune"]["label_fraction"] == 0.5 and second.config["init_from"] == str(first.folder)
    assert second.embed(str(image_folder / "round")).shape == (40, second.model.backbone.num_features)
    again = vm.run_stage("finetune", config=second.folder / "config.yaml", run_dir=second.folder, console="quiet")
    assert again.result["tasks.shape.accuracy"].value == second.result["tasks.shape.accuracy"].value


def test_stages_that_share_their_name_with_a_package_are_called_all_the_same(
    image_folder: Path, root: Path, tmp_path: Path
) -> None:
    import vision_mtl.data.pool

    run = vm.data(
        tasks={"shape": f"folder/{image_folder}"},
        data={"root": str(root)},
        size=32,
        run_dir=tmp_path / "d",
        console="quiet",
    )
    assert run.result.data["num_images"] == 80
    assert callable(vm.data) and callable(vm.study) and callable(vm.export) and vm.data.pool is vision_mtl.data.pool


@pytest.mark.parametrize("name", STAGES.names())
def test_every_stage_is_a_documented_function(name: str) -> None:
    function = getattr(vm, name)
    assert callable(function) and name in dir(vm)
    if inspect.isfunction(function):
        assert function.__name__ == name and STAGES.summary(name) in function.__doc__

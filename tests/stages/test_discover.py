"""Discovery end to end on a small folder: outputs, resuming, and pretraining on the selection."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve

pytestmark = pytest.mark.slow  # whole discoveries

SMALL = {
    "stage": "discover",
    "pretexts.grid_mask.grid": "2",
    "pretexts.downsample.factor": "4",
    "pretexts.rotation.weight": "1",
    "pretexts.contrast.weight": "1",
    "discover.num_images": "12",
    "discover.num_scorings": "2",
    "discover.select": "soft",
    "discover.select_by": "progress",
    "track.tensorboard": "false",
    "runtime.num_threads": "1",
}


def words(**changed: str) -> list[str]:
    options = SMALL | {key.replace("__", "."): value for key, value in changed.items()}
    return [word for key, value in options.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("discover") / "run"


def test_a_run_writes_all_its_outputs(train, result, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, *words()) == 0
    metrics = result(folder)["metrics"]
    assert set(metrics["kinds"]["grid_mask"]) == {"2x2/r0c0", "2x2/r0c1", "2x2/r1c0", "2x2/r1c1"}
    for question in ("rotation", "contrast"):
        assert set(metrics["kinds"][question]) == {"all"}
        assert metrics["kinds"][question]["all"]["reference"] in ("chance", "start")
    for verdict in (v for own in metrics["kinds"].values() for v in own.values()):
        assert verdict["kind"] in ("trivial", "learnable", "hopeless") and verdict["skill"]["n"] == 12
    assert set(metrics["kinds_by_class"]["shape"]) == {"round", "square"}
    times = [row["images_seen"] for row in metrics["skill_over_time"] if row["scale"] == "2x2"]
    assert times == [16, 32]
    for name in ("maps-grid_mask", "maps-grid_mask-images", "repairs", "scales", "training"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert len(pq.read_table(folder / "instances.parquet")) == 12 * (4 + 1 + 1 + 1 + 1)
    assert (folder / "tables" / "damages.csv").read_text().startswith("images,name,level,pretext,damage,kind,skill")
    text = capsys.readouterr().out
    assert "damages of each kind" in text and "what training added" in text
    for name, score in metrics["skill_learned"].items():
        assert {key: score[key] for key in metrics["skill"][name]} == metrics["skill"][name]
        assert set(score) - set(metrics["skill"][name]) == {"learned", "reference"}


def test_no_image_is_scored_by_a_network_trained_on_it_and_test_images_are_not_read(
    train, train_unscored, folder: Path
) -> None:
    train(folder, *words())
    table = pq.read_table(folder / "instances.parquet").to_pandas()
    assert table.groupby("identity")["fold"].nunique().max() == 1
    assert set(table["fold"]) == {"A", "B"}
    assert train_unscored(folder.parent / "pre", "--optim.steps", "1") == 0
    data = json.loads((folder.parent / "pre" / "result.json").read_text())["data"]["sources"]
    (counts,) = data.values()
    assert table["index"].nunique() == 12 < counts["train"] + counts["val"]


def test_the_same_command_again_shows_the_result(train, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, *words())
    before = (folder / "selection.parquet").read_bytes()
    capsys.readouterr()
    assert train(folder, *words()) == 0
    assert "is completed" in capsys.readouterr().err and (folder / "selection.parquet").read_bytes() == before


def test_an_interrupted_run_resumes_with_the_same_result(
    train, result, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_mtl.training.loop import Trainer

    train(folder, *words())
    original, calls = Trainer._take_step, iter(range(100))

    def interrupted(self):
        if next(calls) == 6:  # in the second fold
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    monkeypatch.setattr(Trainer, "_take_step", interrupted)
    assert train(tmp_path / "run", *words()) == 130
    monkeypatch.undo()
    assert train(tmp_path / "run", *words()) == 0
    assert result(tmp_path / "run")["resumes"] == 1 and result(tmp_path / "run")["repeated_steps"] == 0
    found = [pq.read_table(where / "instances.parquet").to_pandas() for where in (folder, tmp_path / "run")]
    np.testing.assert_array_equal(found[0]["error_model"], found[1]["error_model"])


def test_pretraining_takes_the_selection_and_its_damages(
    train, train_unscored, result, folder: Path, tmp_path: Path
) -> None:
    train(folder, *words())
    selection = ["--selection", str(folder / "selection.parquet")]
    assert train_unscored(tmp_path / "run", *selection) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["pretrain"]["selection"].endswith("selection.parquet")
    assert list(config["pretexts"]) == ["grid_mask", "decolorise", "downsample", "rotation", "contrast"]
    assert config["pretexts"]["grid_mask"]["grid"] == 2
    assert result(tmp_path / "run")["images_seen"] == 32
    again = resolve("pretrain", config, {})
    assert again.to_dict()["pretrain"] == config["pretrain"] and again.section("pretexts") == config["pretexts"]
    for control in ("hopeless", "random"):
        assert read_rule(folder / f"selection-{control}.parquet") == control


def test_pretraining_on_a_selection_resumes_with_the_same_result(
    train, train_unscored, folder: Path, tmp_path: Path, interrupt_at
) -> None:
    from vision_mtl.training.checkpoint import checkpoints, read_tensors

    train(folder, *words())
    selection = ["--selection", str(folder / "selection.parquet"), "--runtime.num_threads", "1"]
    assert train_unscored(tmp_path / "whole", *selection) == 0
    interrupt_at(2)
    assert train_unscored(tmp_path / "run", *selection) == 130
    interrupt_at(None)
    assert train_unscored(tmp_path / "run", *selection) == 0
    states = [read_tensors(checkpoints(tmp_path / name / "checkpoints")[-1], "model") for name in ("whole", "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def read_rule(path: Path) -> str:
    return json.loads(pq.read_schema(path).metadata[b"vision_mtl"])["rule"]


def test_a_selection_of_other_images_or_sizes_is_refused(
    train, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(folder, *words())
    file = str(folder / "selection.parquet")
    assert train(tmp_path / "a", "--selection", file, "--image_size", "48") == 2
    assert "made on images of 32 x 32 pixels in 3 channels; these are 48 x 48" in capsys.readouterr().err
    assert train(tmp_path / "b", "--selection", file, task=False) == 2
    assert "made from other images" in capsys.readouterr().err
    assert train(tmp_path / "c", "--selection", file, "--pretexts.grid_mask.grid", "3") == 2
    assert "pretexts.grid_mask.grid was 2 there and is 3 here" in capsys.readouterr().err
    assert train(tmp_path / "d", "--selection", str(folder / "config.yaml")) == 2
    assert "is no selection file" in capsys.readouterr().err


MISTAKES = [
    ({"pretexts__grid_mask__hidden": "centre", "pretexts__grid_mask__grid": "3"}, "hidden must be one; found centre"),
    ({"discover__num_images": "2"}, "discover.num_images must be 4 or more; found 2"),
    ({"discover__top_ratio": "1.5", "discover__select": "top"}, "discover.top_ratio must lie in (0, 1]; found 1.5"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES)
def test_mistakes_are_named(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str
) -> None:
    assert train(tmp_path / "run", *words(**changed)) == 2
    assert message in capsys.readouterr().err


def test_weights_trained_on_the_images_are_an_error(train, folder, tmp_path, capsys) -> None:
    assert train(tmp_path / "first") == 0
    assert (
        main(["--stage", "discover", "--init_from", str(tmp_path / "first"), "--run_dir", str(tmp_path / "run")]) == 2
    )
    assert "leave out --init_from" in capsys.readouterr().err


def test_the_default_damages_are_five_grids_colour_and_three_factors() -> None:
    config = resolve("discover", {}, {})
    assert config.pretexts["grid_mask"].grid == [2, 3, 4, 6, 8]
    assert config.pretexts["downsample"].factor == [2, 4, 8] and "decolorise" in config.pretexts
    assert resolve("pretrain", {}, {}).pretexts["grid_mask"].grid == 4

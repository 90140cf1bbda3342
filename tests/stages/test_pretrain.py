"""`pretrain` end to end: a run, its folder, resuming, and starting from another run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors

ROOT = Path(__file__).parents[2]


def test_a_run_writes_all_its_outputs(train, result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert train(folder, "--track.tensorboard", "true", "--track.num_pictures", "1", "--track.num_probes", "1") == 0
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "result.json"):
        assert (folder / name).is_file()
    for name in ("repairs", "curves", "skill"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert list(folder.glob("events.out.tfevents.*")) and len(checkpoints(folder / "checkpoints")) == 1
    found = result(folder)
    assert found["stage"] == "pretrain" and found["status"] == "completed" and found["seed"] == 0
    assert found["images_seen"] == 32 and found["seconds"] > 0 and found["images_per_second"] > 0
    (source,) = found["metrics"]["skill_by_source"]
    for scores in (found["metrics"]["skill"], found["metrics"]["skill_by_source"][source]):
        assert set(scores) == {"grid_mask", "decolorise", "downsample", "contrast"}
        for score in scores.values():
            assert score["low"] <= score["value"] <= score["high"] <= 1 and score["n"] >= score["num_clusters"] > 1
    assert set(found["metrics"]["skill_untrained"]) == set(found["metrics"]["skill"])
    assert found["data"]["num_images"] == 80 and set(found["metrics"]["online"]) == {"shape"}
    text = capsys.readouterr().out
    assert "what training added on held-out images" in text and str(folder) in text
    metrics = found["metrics"]
    for scores in (metrics["skill_learned"], metrics["skill_learned_by_source"][source]):
        assert set(scores) == set(metrics["skill"])
        for name, score in scores.items():
            assert score["value"] <= metrics["skill"][name]["value"] + 1e-9 and isinstance(score["reference"], str)
            assert not score["learned"] or score["low"] > 0


@pytest.mark.slow
def test_the_same_command_again_shows_the_result(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run") == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    capsys.readouterr()
    assert train(tmp_path / "run") == 0
    assert "is completed" in capsys.readouterr().err
    assert (tmp_path / "run" / "result.json").read_bytes() == before


@pytest.mark.slow
def test_any_other_difference_is_refused_with_the_diff(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run") == 0
    assert train(tmp_path / "run", "--seed", "1", "--optim.clip_norm", "2") == 2
    text = capsys.readouterr().err
    assert "seed: 0 there, 1 here" in text and "optim.clip_norm: 1.0 there, 2.0 here" in text


@pytest.mark.slow
def test_more_steps_extend_a_run_and_equal_one_long_run_with_a_constant_rate(train, result, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--optim.steps", "2", "--optim.max_seconds", "60") == 0
    assert train(tmp_path / "run", "--optim.steps", "4", "--optim.max_seconds", "50") == 2, "less time"
    assert train(tmp_path / "run", "--optim.steps", "4") == 0, "as a default run, which has a limit, is extended"
    found = result(tmp_path / "run")
    assert found["images_seen"] == 32 and any("extended from 2 to 4" in warning for warning in found["warnings"])
    assert train(tmp_path / "run", "--optim.steps", "3") == 2


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_same_result(train, tmp_path: Path, interrupt_at, result) -> None:
    probes = ("--track.num_probes", "3")
    assert train(tmp_path / "whole", *probes) == 0
    interrupt_at(2)
    assert train(tmp_path / "run", *probes) == 130
    assert result(tmp_path / "run")["status"] == "interrupted"
    interrupt_at(None)
    assert train(tmp_path / "run", *probes) == 0
    states = [read_tensors(checkpoints(tmp_path / name / "checkpoints")[-1], "model") for name in ("whole", "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if record.get("kind") != "resume"]
    assert [record["step"] for record in records if record.get("kind") == "resume"] == [2]
    assert steps == [1, 2, 3, 4, 4] and len(checkpoints(tmp_path / "run" / "checkpoints")) == 2


@pytest.mark.slow
def test_a_new_run_inherits_weights_backbone_and_size(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vision_mtl.cli.command import main

    assert train(tmp_path / "first") == 0
    root = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())["data"]["root"]
    source = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())["tasks"]["shape"]["source"]
    words = ["--stage", "pretrain", "--init_from", str(tmp_path / "first"), "--data.root", root, "--optim.steps", "1"]
    words += ["--tasks.shape.source", source, "--optim.batch_size", "8", "--device", "cpu"]
    assert main([*words, "--run_dir", str(tmp_path / "second"), "--optim.learning_rate", "1e-12"]) == 0
    config = yaml.safe_load((tmp_path / "second" / "config.yaml").read_text())
    assert config["backbone"]["name"] == "test_resnet" and config["image_size"] == [32, 32]
    states = [read_tensors(checkpoints(tmp_path / name / "checkpoints")[-1], "model") for name in ("first", "second")]
    torch.testing.assert_close(states[0]["backbone.model.conv1.0.weight"], states[1]["backbone.model.conv1.0.weight"])
    for option, value in (("backbone.name", "resnet18"), ("image_size", "64")):
        capsys.readouterr()
        assert main([*words, "--run_dir", str(tmp_path / "third"), f"--{option}", value]) == 2
        text = capsys.readouterr().err
        assert f"--{option} {value} contradicts --init_from" in text


@pytest.mark.slow
def test_a_checkpoint_describes_its_model(train, tmp_path: Path) -> None:
    assert train(tmp_path / "run") == 0
    state = read_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert state["backbone"]["name"] == "test_resnet" and state["image_size"] == [32, 32]
    assert state["class_names"] == {"shape": ["round", "square"]}
    assert len(state["mean"]) == len(state["std"]) == 3


@pytest.mark.slow
def test_unlabelled_images_alone_need_no_task(train, result, tmp_path: Path) -> None:
    assert train(tmp_path / "run", task=False) == 0
    found = result(tmp_path / "run")
    assert found["metrics"]["online"] == {} and found["data"]["tasks"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--backbone.in_chans", "1"], ["--image_size", "32,48"], ["--decoder.name", "transformer"]]
)
def test_grey_images_other_shapes_and_decoders(train, result, tmp_path: Path, words: list[str]) -> None:
    extra = ["--pretexts.decolorise.weight", "0"] if "1" in words else []
    assert train(tmp_path / "run", *words, *extra) == 0
    assert result(tmp_path / "run")["status"] == "completed"


@pytest.mark.slow
def test_every_pretext_at_once_with_learned_fills(train, result, tmp_path: Path) -> None:
    words = [w for name in ("blur", "rotation", "neighbour", "chain") for w in (f"--pretexts.{name}.weight", "1")]
    assert train(tmp_path / "run", *words, "--pretexts.grid_mask.fill", "learned", "--optim.batch_size", "24") == 0
    assert len(result(tmp_path / "run")["metrics"]["skill"]) == 8


def test_a_failed_run_says_so_and_keeps_its_batch(
    train, result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        train(tmp_path / "run", "--optim.learning_rate", "1e30", "--optim.warmup_ratio", "0", "--optim.clip_norm", "0")
        == 2
    )
    text = capsys.readouterr().err
    assert "non-finite at step" in text and "failed_batch.safetensors" in text
    kept = load_file(tmp_path / "run" / "failed_batch.safetensors")
    assert kept["images"].shape == (8, 3, 32, 32)
    assert result(tmp_path / "run")["status"] == "failed" and "non-finite" in result(tmp_path / "run")["error"]


def test_a_folder_with_other_files_is_an_error(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert train(tmp_path) == 2
    assert "holds other files (thesis.tex" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_two_processes_see_the_same_images_as_one(
    image_folder: Path, root: Path, tmp_path: Path, result, train
) -> None:
    """So the damage and the first loss are the same in one process and in two."""
    assert train(tmp_path / "one", "--backbone.name", "vit_tiny_patch16_224", "--runtime.precision", "fp32") == 0
    words = ["--stage", "pretrain", "--run_dir", tmp_path / "two", "--data.root", root, "--image_size", "32"]
    words += ["--backbone.name", "vit_tiny_patch16_224", "--runtime.precision", "fp32", "--optim.steps", "4"]
    words += ["--optim.batch_size", "8", "--device", "cpu", "--tasks.shape.source", f"folder/{image_folder}"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    done = subprocess.run([*launch, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(tmp_path / "two")["images_seen"] == 32
    losses = []
    for name in ("one", "two"):
        states = read_tensors(checkpoints(tmp_path / name / "checkpoints")[-1], "model")
        losses.append(states)
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, atol=5e-3, rtol=0.05)

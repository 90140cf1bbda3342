"""Run folders, YAML files and studies of earlier versions still resume, open and resolve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import vision_mtl as vm
from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.config.schema import ADDED, ADDED_TO_TASKS
from vision_mtl.config.yaml_files import read_config
from vision_mtl.recipes.study import arm_roles
from vision_mtl.recipes.study_options import composer
from vision_mtl.study.arms import read_arms
from vision_mtl.study.plan import Plan

RUNS = Path(__file__).parent / "runs"
# names of the runs of this study, as the version before planned them
STUDY = """
stage: study
image_size: 32
tasks: {digits: {source: bundled/digits}, cars: {source: rendered/cars}}
backbone: {name: test_resnet.r160_in1k}
device: cpu
runtime: {precision: fp32}
data: {root: /tmp/baseline-data}
study:
  seeds: [0]
  arms: {labelled_only: [finetune], pretrained: [pretrain, finetune]}
  options:
    pretrain: {optim: {steps: 6, batch_size: 16, max_seconds: null}}
    finetune: {optim: {steps: 6, batch_size: 16, max_seconds: null}}
"""
STUDY_RUNS = ["runs/finetune-s0-2622eea1d7", "runs/finetune-s0-3ed1239326", "runs/pretrain-s0-de9bd1f6cd"]


def copied(name: str, folder: Path, root: Path) -> Path:
    """A copy of an old run whose config has `root` as the place of its store."""
    run = folder / name
    shutil.copytree(RUNS / name, run)
    (run / "expected_metrics.jsonl").unlink(missing_ok=True)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        text.replace("/tmp/legacy/data", str(root)).replace("/tmp/legacy/runs", str(folder))
    )
    return run


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path: Path, root: Path) -> None:
    run = copied("pretrain", tmp_path, root)
    assert main(["--config", str(run / "config.yaml"), "--run_dir", str(run), "--console", "quiet"]) == 0
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = [json.loads(line) for line in (RUNS / "pretrain/expected_metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in found if line["kind"] == "train"]
    assert losses == [(line["step"], pytest.approx(line["loss"], rel=1e-3)) for line in wanted]
    assert json.loads((run / "result.json").read_text())["resumes"] == 1
    assert read_config(run / "config.yaml")["data"]["split_rule"] == "independent"
    words = ["--config", str(RUNS / "pretrain/config.yaml"), "--run_dir", str(run), "--data.root", str(root)]
    assert main([*words, "--console", "quiet"]) == 0, "it resumes by the same words as before"


def test_a_run_with_other_options_is_still_refused(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied("pretrain", tmp_path, root)
    words = ["--config", str(run / "config.yaml"), "--run_dir", str(run), "--optim.batch_size", "4"]
    assert main(words) == 2
    assert "optim.batch_size: 8 there, 4 here" in capsys.readouterr().err
    assert main([*words[:4], "--data.split_rule", "proportional"]) == 2
    assert "data.split_rule: 'independent' there, 'proportional' here" in capsys.readouterr().err


def test_a_completed_run_opens_predicts_and_starts_another(tmp_path: Path, root: Path) -> None:
    run = vm.load_run(copied("finetune", tmp_path, root), device="cpu")
    assert run.stage == "finetune" and run.result["tasks.digits.accuracy"].n == 1025
    answer = run.predict(np.zeros((20, 20, 3), np.uint8))[0]["digits"]
    assert answer["class"] in run.state["class_names"]["digits"] and sum(
        answer["probabilities"].values()
    ) == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(run.embed(np.zeros((20, 20, 3), np.uint8))).all()
    config = resolve("finetune", {}, {"init_from": [str(run.folder)]})
    assert config.image_size == (16, 16) and config.backbone.kwargs == {"channels": [8, 8, 8, 16], "stem_width": 8}
    assert list(config.tasks) == ["digits"] and config.decoder.width == 8
    # its splits were drawn independently, and stay so in what starts from it
    assert len(run.pool.indices("test")) == 1025
    assert config.data.split_rule == "independent"
    assert config.data.validation_labels == "fraction", "what starts from an old run is a new run"
    assert any("data.split_rule independent is inherited from --init_from" in note for note in config.notes)
    assert resolve("pretrain", {}, {"init_from": [str(run.folder)]}).data.split_rule == "independent"
    new = resolve("finetune", {}, {"init_from": [str(run.folder)], "data.split_rule": ["proportional"]})
    assert new.data.split_rule == "proportional" and not new.notes


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_an_old_file_resolves_to_itself(name: str, tmp_path: Path) -> None:
    file = read_config(RUNS / name / "config.yaml") | {"init_from": None}
    assert resolve(name, file, {}).data.split_rule == "proportional", "in a new folder it is a new run"
    shutil.copy(RUNS / name / "config.yaml", tmp_path)
    assert file["runtime"]["tune"] == "none" and file["runtime"]["tuned"] == {}
    found = resolve(name, file, {}, folder=tmp_path).to_dict()
    file["runtime"] = {key: value for key, value in file["runtime"].items() if key not in ("tune", "tuned")}
    for key, value in ADDED.items():
        *path, option = key.split(".")
        section = found
        for part in path:
            section = section.get(part, {})
        assert not section or section.pop(option) == value
    for task in found.get("tasks", {}).values():
        assert {option: task.pop(option) for option in ADDED_TO_TASKS} == ADDED_TO_TASKS
    assert not found.pop("score", None), "a newer section, of newer options only"
    assert found == file
    assert resolve(name, file | {"runtime": {"tune": "same_precision"}}, {}).notes


def test_a_study_recognises_the_runs_that_it_has_finished(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(STUDY)
    config = resolve("study", yaml.safe_load(STUDY), {}, folder=tmp_path)
    own = config.options
    compose = composer(config, own.options, own.earlier_pretexts, own.earlier_pretraining)
    plan = Plan(compose, config.section("tasks"), [0.1], arm_roles())
    for arm in read_arms(config.options.arms, arm_roles()).values():
        plan.add(arm, 0.1, 0)
    assert sorted(node.folder for node in plan.nodes.values()) == STUDY_RUNS
    options = next(node.options for node in plan.nodes.values() if node.stage == "pretrain")
    assert options["pretexts"]["downsample"] == {"enlarged": "bicubic"}, "and runs the others as it ran those"


def test_the_head_of_an_old_run_keeps_its_meaning(tmp_path: Path, root: Path) -> None:
    run = vm.load_run(copied("pretrain", tmp_path, root), device="cpu")
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    found = run.reconstruct(picture, "downsample", damage="x4")
    assert np.array_equal(found.damaged, found.classic), "it predicts the difference to the bicubic image"
    with pytest.raises(vm.UserError, match=r"downsample\.enlarged was bicubic when the head was trained"):
        run.reconstruct(picture, "downsample", enlarged="back_projection")
    assert resolve("pretrain", {}, {"init_from": [str(run.folder)]}).pretexts["downsample"].enlarged == "bicubic"
    assert resolve("pretrain", {}, {}).pretexts["downsample"].enlarged == "back_projection"

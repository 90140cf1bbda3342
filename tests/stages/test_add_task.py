"""`add_task`: a new head on a trained model, and its effect on the old tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.evaluation.predictions import predict_task
from vision_mtl.inference.restore import restore_model
from vision_mtl.recipes.result_text import result_text
from vision_mtl.training.checkpoint import checkpoints, read_tensors

pytestmark = pytest.mark.slow  # several runs, one after another

OLD = ("letter", "seen")


@pytest.fixture(scope="module")
def first(supervise, table_tasks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two tasks, one of which reads the decoder."""
    folder = tmp_path_factory.mktemp("add_task") / "first"
    assert supervise("finetune", folder, *table_tasks(*OLD), "--optim.steps", 6, "--optim.learning_rate", 0.05) == 0
    return folder


@pytest.fixture(scope="module")
def add(supervise, table_tasks, first: Path) -> Callable[..., int]:
    def run(folder: Path, *words: object) -> int:
        rate = ["--optim.learning_rate", 0.2, "--optim.warmup_ratio", 0, "--init_from", first]
        return supervise("add_task", folder, *table_tasks("shade"), *rate, *words, backbone=False)

    return run


@pytest.fixture(scope="module")
def frozen(add, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("add_task") / "frozen"
    assert add(folder) == 0
    return folder


@pytest.fixture(scope="module")
def pool(label_table: Path, root: Path) -> Pool:
    source = f"csv/{label_table}/labels.csv"
    tasks = {
        "letter": Task(source=source, label="letter"),
        "seen": Task(source=source, kind="dense", masks=str(label_table / "masks")),
    }
    return build_pool(Data(root=str(root), val_ratio=0.25), tasks, image_size=(32, 32))


def best(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "checkpoints" / "best.safetensors", "model")


def last(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(folder / "checkpoints")[-1], "model")


def test_on_a_frozen_trunk_old_weights_stay_bit_identical(first: Path, frozen: Path) -> None:
    """So do BatchNorm's averages, heads and temperatures, in the last checkpoint and in the best."""
    before = best(first)
    assert any("running_mean" in name for name in before) and any("decoder" in name for name in before)
    for after in (last(frozen), best(frozen)):
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert {name.split(".")[1] for name in after.keys() - before.keys()} == {"task_shade"}
    assert last(frozen)["task_heads.task_shade.project.weight"].std() > 5e-3  # from 1e-3: the new head has learned


def test_on_a_frozen_trunk_old_predictions_stay_bit_identical(first: Path, frozen: Path, pool: Pool) -> None:
    models = [restore_model(str(folder))[0] for folder in (first, frozen)]
    for task in OLD:
        indices = pool.indices("test", task=task)
        one, other = (predict_task(model, pool, task, indices) for model in models)
        assert torch.equal(one.outputs, other.outputs) and len(one.outputs) > 5
        if task == "letter":
            assert torch.equal(one.probabilities(models[0], task), other.probabilities(models[1], task))


def test_on_a_frozen_trunk_the_change_is_exactly_zero(frozen: Path, result) -> None:
    found = result(frozen)
    assert set(found["metrics"]["change"]) == set(OLD) and list(found["metrics"]["tasks"]) == ["shade"]
    for task, score in found["metrics"]["change"].items():
        assert (
            score["value"] == score["low"] == score["high"] == 0 and score["n"] == found["data"]["tasks"][task]["test"]
        )
    row = found["metrics"]["tasks"]["shade"]
    assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
    assert row["num_labelled"] == found["data"]["tasks"]["shade"]["train"]
    assert "change of the old tasks, after minus before" in result_text(found)


def test_the_new_model_predicts_old_and_new_tasks(frozen: Path, tmp_path: Path, add) -> None:
    model, state = restore_model(str(frozen))
    assert set(model.task_specs) == {*OLD, "shade"} == set(state["task_answers"])
    assert state["class_names"]["shade"] == ["bright", "dark"] and set(state["tasks"]) == {*OLD, "shade"}


@pytest.mark.parametrize("trunk", ["late", "trained"])
def test_a_trained_trunk_reports_what_it_changed(
    add, tmp_path: Path, first: Path, result, pool: Pool, trunk: str
) -> None:
    assert add(tmp_path / "run", "--add_task.trunk", trunk) == 0
    before, after = best(first), last(tmp_path / "run")
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    trunk_moved = {name for name in moved if name.startswith("backbone.")}
    assert trunk_moved and not any(name.startswith("task_heads.") for name in moved)
    late = {name for name in trunk_moved if ".layer4." in name or ".stages.3." in name}
    assert (trunk_moved == late) == (trunk == "late")
    change = result(tmp_path / "run")["metrics"]["change"]
    models = [restore_model(str(folder))[0] for folder in (first, tmp_path / "run")]
    for task in OLD:
        indices = pool.indices("test", task=task)
        old, new = (predict_task(model, pool, task, indices).outputs for model in models)
        assert change[task]["low"] <= change[task]["value"] <= change[task]["high"]
        if task == "letter":
            true = pool.targets[task].values[indices.numpy()]
            gain = np.mean(new.argmax(1).numpy() == true) - np.mean(old.argmax(1).numpy() == true)
            assert change[task]["value"] == pytest.approx(gain)
        else:
            hits = [c.diagonal(dim1=1, dim2=2).sum(1) / c.sum((1, 2)) for c in (old.double(), new.double())]
            assert change[task]["value"] == pytest.approx(float((hits[1] - hits[0]).mean()))


def test_rehearsal_trains_old_and_new(add, tmp_path: Path, first: Path, result) -> None:
    assert add(tmp_path / "run", "--add_task.trunk", "trained", "--add_task.rehearsal", "true") == 0
    before, after = best(first), last(tmp_path / "run")
    for task in OLD:
        name = f"task_heads.task_{task}.project.weight"
        assert not torch.equal(before[name], after[name])
    metrics = result(tmp_path / "run")["metrics"]
    assert set(metrics["tasks"]) == {"shade", *OLD} and set(metrics["change"]) == set(OLD)
    assert all(row["num_labelled"] > 10 and row["epochs"] > 0 for row in metrics["tasks"].values())


def test_an_interrupted_run_resumes_with_the_same_result(
    add, interrupt_at, tmp_path: Path, result, frozen: Path
) -> None:
    interrupt_at(2)
    assert add(tmp_path / "run") == 130
    interrupt_at(None)
    torch.rand(9)
    assert add(tmp_path / "run") == 0
    one, other = last(frozen), last(tmp_path / "run")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert result(tmp_path / "run")["metrics"] == result(frozen)["metrics"]


def test_options_that_do_not_fit_are_errors(
    supervise, table_tasks, add, first: Path, tmp_path: Path, label_table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(code: int) -> str:
        assert code == 2
        return capsys.readouterr().err

    assert "give --init_from RUN" in said(supervise("add_task", tmp_path / "a", *table_tasks("shade")))
    start = ["--init_from", first]
    assert "has heads for letter, seen, and no other task is given" in said(
        supervise("add_task", tmp_path / "b", *start, backbone=False)
    )
    assert "has no use on a frozen trunk" in said(add(tmp_path / "c", "--add_task.rehearsal", "true"))
    renamed = tmp_path / "labels.csv"
    lines = (label_table / "labels.csv").read_text().replace(",c,", ",d,").splitlines()
    renamed.write_text("\n".join([lines[0], *(f"{label_table}/{line}" for line in lines[1:])]) + "\n")
    other = ["--tasks.letter.source", f"csv/{renamed}"]
    assert "was trained on classes ['a', 'b', 'c'], but its images now show ['a', 'b', 'd']" in said(
        add(tmp_path / "d", *other)
    )


def test_an_old_task_without_images_is_refused() -> None:
    from vision_mtl.core.errors import UserError
    from vision_mtl.recipes.added_task import check_old_tasks

    with pytest.raises(UserError, match="the old task 'cars' has no images here"):
        check_old_tasks(SimpleNamespace(targets={}), {"class_names": {}}, ["cars"])

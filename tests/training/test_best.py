"""The best weights: for each task and for all, the latest of equal ones, in files that other runs start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vision_mtl.training.best import ALL, Best
from vision_mtl.training.checkpoint import find_checkpoint, newest_checkpoint, read_state, read_tensors, save_checkpoint

# step -> scores; the mean is best at 2 and again at 4, a is best at 1, b at 3 and again at 4
SCORES = {1: {"a": 0.9, "b": 0.1}, 2: {"a": 0.8, "b": 0.6}, 3: {"a": 0.1, "b": 0.7}, 4: {"a": 0.7, "b": 0.7}}


def model_at(step: int) -> nn.Module:
    model = nn.BatchNorm1d(2)
    nn.init.constant_(model.weight, step)
    model.running_mean.fill_(-step)
    return model


def offered(folder: Path, per_task: bool = True) -> Best:
    best = Best(folder, per_task)
    for step, scores in SCORES.items():
        best.offer(model_at(step), step, scores)
        best.flush({"names": ["ä"]})
        best.commit()
    return best


def test_each_task_and_all_together_have_separate_best_steps(tmp_path: Path) -> None:
    best, better = Best(tmp_path), []
    for step, scores in SCORES.items():
        better.append(best.offer(model_at(step), step, scores))
    assert better == [[ALL, "a", "b"], [ALL, "b"], ["b"], [ALL, "b"]]
    assert best.scores == {
        ALL: {"score": pytest.approx(0.7), "step": 4},
        "a": {"score": 0.9, "step": 1},
        "b": {"score": 0.7, "step": 4},
    }


def test_weights_are_those_of_the_best_step(tmp_path: Path) -> None:
    best = offered(tmp_path)
    for name, step in {ALL: 4, "a": 1, "b": 4}.items():
        other = nn.BatchNorm1d(2)
        best.load(other, name)
        assert other.weight.tolist() == [step, step] and other.running_mean.tolist() == [-step, -step]


def test_a_task_with_too_few_images_chooses_nothing(tmp_path: Path) -> None:
    """`a` is best at step 1; what is not chosen is what the last step left."""
    for choosing, steps in {("a", "b", ALL): (2, 1, 3), ("a",): (4, 1, 4), (): (4, 4, 4)}.items():
        best = Best(tmp_path)
        for step, scores in {**SCORES, 4: {"a": 0.7, "b": 0.4}}.items():
            best.offer(model_at(step), step, scores, choosing)
        assert tuple(best.scores[name]["step"] for name in (ALL, "a", "b")) == steps
        assert best.scores[ALL]["score"] == pytest.approx(0.7 if ALL in choosing else 0.55)


def test_kept_weights_are_copies(tmp_path: Path) -> None:
    best, model = Best(tmp_path), model_at(5)
    best.offer(model, 5, {"a": 1.0})
    with torch.no_grad():
        model.weight.add_(1)
    assert best.weights[ALL]["weight"].tolist() == [5, 5]


def test_files_are_those_of_the_best_steps_and_describe_themselves(tmp_path: Path) -> None:
    offered(tmp_path)
    files = {"best.safetensors": 4, "best-a.safetensors": 1, "best-b.safetensors": 4}
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    for name, step in files.items():
        state = read_state(tmp_path / name)
        assert state["step"] == state["best"]["step"] == step and state["names"] == ["ä"]
        assert read_tensors(tmp_path / name, "model")["weight"].tolist() == [step, step]


def test_one_task_or_none_asked_for_is_one_file(tmp_path: Path) -> None:
    offered(tmp_path / "all", per_task=False)
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["best.safetensors"]
    best = Best(tmp_path / "one")
    assert best.offer(model_at(1), 1, {"a": 0.5}) == [ALL]


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    best = offered(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    best.flush({})
    assert not list(tmp_path.iterdir())
    best.offer(model_at(9), 9, {"a": 0.95, "b": 0.0})
    best.flush({})
    assert [path.name for path in tmp_path.iterdir()] == ["waiting-best-a.safetensors"]
    best.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["best-a.safetensors"]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = offered(tmp_path / "whole")
    first = Best(tmp_path / "parts")
    for step in (1, 2):
        first.offer(model_at(step), step, SCORES[step])
        first.flush({})
        first.commit()
    second = Best(tmp_path / "parts")
    assert second.restore(first.scores) == []
    for step in (3, 4):
        second.offer(model_at(step), step, SCORES[step])
    assert second.scores == whole.scores and second.scores is not first.scores
    for name, tensors in whole.weights.items():
        assert all(torch.equal(value, second.weights[name][key]) for key, value in tensors.items())


def stopped(folder: Path, at_checkpoint: int, killed_after: int, committed: bool) -> tuple[Best, dict]:
    """Return the Best of a run killed after its checkpoint at step `at_checkpoint`, and the checkpoint's scores."""
    best, memory = Best(folder), {}
    for step in range(1, killed_after + 1):
        best.offer(model_at(step), step, SCORES[step])
        best.flush({})
        if step == at_checkpoint:
            memory = {name: dict(score) for name, score in best.scores.items()}
            if committed:
                best.commit()
    return best, memory


@pytest.mark.parametrize("committed", [True, False])
def test_files_are_never_newer_than_the_checkpoint(tmp_path: Path, committed: bool) -> None:
    """Killed after evaluations that no checkpoint holds, and between a checkpoint and the renaming of the files."""
    _, memory = stopped(tmp_path, 1, 2 if committed else 1, committed)
    second = Best(tmp_path)
    assert second.restore(memory) == [] and second.scores == memory
    for name in memory:
        assert second.weights[name]["weight"].tolist() == [1, 1]
        assert read_tensors(second.path(name), "model")["weight"].tolist() == [1, 1]
    assert not list(tmp_path.glob("waiting-*"))


def test_lost_weights_are_reported_and_chosen_again(tmp_path: Path) -> None:
    """The checkpoint with the files' scores was damaged; the one before it has other scores."""
    first, memory = stopped(tmp_path, 1, 3, True)
    first.commit()
    second = Best(tmp_path)
    assert second.restore(memory) == [ALL, "b"]  # a is still best at 1
    assert set(second.scores) == {"a"} and not second.path("b").exists()
    assert second.offer(model_at(2), 2, SCORES[2]) == [ALL, "b"]


def test_one_process_of_several_reads_without_moving(tmp_path: Path) -> None:
    _, memory = stopped(tmp_path, 1, 2, True)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert Best(tmp_path).restore(memory, tidy=False) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_replaced_weights_keep_the_score(tmp_path: Path) -> None:
    best = offered(tmp_path)
    best.replace(model_at(7), 2)
    best.flush({})
    best.commit()
    state = read_state(tmp_path / "best.safetensors")
    assert state["best"] == {"score": pytest.approx(0.7), "step": 2}
    assert read_tensors(tmp_path / "best.safetensors", "model")["weight"].tolist() == [7, 7]
    assert read_tensors(tmp_path / "best-b.safetensors", "model")["weight"].tolist() == [4, 4]


def test_init_from_uses_the_best_and_resuming_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (3, 4):
        newest = save_checkpoint(folder, {"step": step}, model_at(step))
    assert find_checkpoint(tmp_path) == newest
    offered(folder)
    for where in (tmp_path, folder):
        assert find_checkpoint(where) == folder / "best.safetensors"
    assert newest_checkpoint(folder) == newest and find_checkpoint(newest) == newest
    assert find_checkpoint(folder / "best-a.safetensors") == folder / "best-a.safetensors"

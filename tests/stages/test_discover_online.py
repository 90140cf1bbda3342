"""Discovery during training, end to end on a small folder: outputs, resuming, and later use of the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vision_mtl.recipes.discovery_online import Curriculum
from vision_mtl.recipes.run_warnings import images_seen
from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors
from vision_mtl.training.loop import Trainer

pytestmark = pytest.mark.slow  # whole discoveries

SMALL = {
    "stage": "discover",
    "pretexts.grid_mask.grid": "2",
    "pretexts.downsample.factor": "4",
    "pretexts.rotation.weight": "1",
    "optim.steps": "8",
    "data.val_ratio": "0.2",
    "discover.online": "true",
    "discover.online_updates": "4",
    "discover.online_images": "8",
    "track.tensorboard": "false",
    "runtime.num_threads": "1",
}
ARMS = {
    "grid_mask": {"2x2/r0c0", "2x2/r0c1", "2x2/r1c0", "2x2/r1c1"},
    "decolorise": {"grey"},
    "downsample": {"x4"},
    "rotation": {"all"},
}


def words(**changed: str) -> list[str]:
    options = SMALL | {key.replace("__", "."): value for key, value in changed.items()}
    return [word for key, value in options.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("online") / "run"


def records(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "online"]


def test_a_run_writes_all_its_outputs(train, result, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, *words()) == 0
    metrics = result(folder)["metrics"]
    for key in ("online_weights", "online_weights_mean"):
        assert {name: set(weights) for name, weights in metrics[key].items()} == ARMS
    assert set(metrics["skill"]) == set(ARMS) and len(metrics["skill_by_source"]) == 1
    assert all(score["n"] > 0 for score in metrics["skill"].values())
    found = records(folder)
    assert [record["step"] for record in found] == [0, 2, 4, 6, 8]
    assert set(found[0]["weight"]) == {1.0} and len({tuple(record["weight"]) for record in found}) == 5
    assert all(sum(record["share"]) == pytest.approx(1) and min(record["weight"]) >= 0.25 for record in found)
    last = [weight for weights in metrics["online_weights"].values() for weight in weights.values()]
    assert last == found[-1]["weight"]
    mean = [weight for weights in metrics["online_weights_mean"].values() for weight in weights.values()]
    assert mean == pytest.approx(np.mean([record["weight"] for record in found[:-1]], 0))  # equal shares of the run
    assert len(metrics["skill_over_time"]) == 5 * 7
    for name in ("online", "repairs", "curves", "skill"):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert "weights relative to the mixture's" in capsys.readouterr().out


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int) -> None:
    original, calls = getattr(owner, name), iter(range(100))

    def interrupted(self, *arguments, **options):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Trainer, "_take_step", 3),
        (Trainer, "_take_step", 6),
        (Curriculum, "_measure", 3),
        (Curriculum, "_draw_by_weights", 2),
    ],
    ids=["between updates", "after an update", "while measuring", "while changing the weights"],
)
def test_an_interrupted_run_resumes_with_the_same_bits(
    train,
    train_unscored,
    result,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    call: int,
) -> None:
    train(folder, *words())
    interrupt(monkeypatch, owner, name, call)
    assert train_unscored(tmp_path / "run", *words()) == 130
    monkeypatch.undo()
    assert train_unscored(tmp_path / "run", *words()) == 0
    ends = [checkpoints(where / "checkpoints")[-1] for where in (folder, tmp_path / "run")]
    states = [read_tensors(end, "model") for end in ends]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert read_state(ends[0])["online"] == read_state(ends[1])["online"]
    whole, resumed = (result(where)["metrics"] for where in (folder, tmp_path / "run"))
    assert whole["online_weights"] == resumed["online_weights"]
    assert whole["online_weights_mean"] == resumed["online_weights_mean"]


def test_no_test_image_and_no_validation_image_is_trained_on(
    train_unscored, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vision_mtl.training.repair import RepairFeed

    original, seen, pools = RepairFeed.at, set(), []

    def watched(self, step, num_micro_batches):
        seen.update(self.batches.at(step)[0].tolist())
        pools.append(self.pool)
        return original(self, step, num_micro_batches)

    monkeypatch.setattr(RepairFeed, "at", watched)
    assert train_unscored(tmp_path / "run", *words()) == 0
    assert seen and seen <= set(pools[0].indices("train").tolist())


def test_pretraining_takes_the_selection(train, train_unscored, result, folder: Path, tmp_path: Path) -> None:
    train(folder, *words())
    file = folder / "selection.parquet"
    table = pq.read_table(file).to_pandas()
    assert table["identity"].isna().all() and table["weight"].max() == 1 and len(table) == 7
    assert train_unscored(tmp_path / "run", "--selection", str(file), "--data.val_ratio", "0.2") == 0
    assert result(tmp_path / "run")["images_seen"] == 32


def test_the_checkpoint_is_a_pretraining_runs(
    train, train_unscored, result, folder: Path, tmp_path: Path, capsys
) -> None:
    train(folder, *words())
    start = ["--init_from", str(folder), "--data.val_ratio", "0.2"]
    assert train(tmp_path / "tuned", "--stage", "finetune", *start) == 0
    assert "shape" in result(tmp_path / "tuned")["metrics"]["tasks"]
    assert train_unscored(tmp_path / "more", *words(), "--init_from", str(folder)) == 0
    assert f"initialised from {folder}/checkpoints" in capsys.readouterr().err
    assert set(images_seen(str(folder))) <= set(images_seen(str(tmp_path / "more"))) and len(images_seen(str(folder)))


MISTAKES = [
    ({"discover__online_floor": "0"}, "discover.online_floor must lie in (0, 1]; found 0"),
    ({"discover__online_updates": "0"}, "discover.online_updates must be 1 or more; found 0"),
    ({"discover__online_images": "1"}, "discover.online_images must be 2 or more; found 1"),
    ({"discover__select": "top"}, "discover.select has no use with discover.online"),
    ({"discover__num_images": "12"}, "leave it out; found 12"),
    ({"discover__online": "false"}, "discover.online_updates is for discover.online alone: add --discover.online"),
    ({"data__include_test": "true"}, "leave data.include_test out; found true"),
    ({"pretexts__grid_mask__hidden": "centre", "pretexts__grid_mask__grid": "3"}, "hidden must be one; found centre"),
    ({"data__val_ratio": "0"}, "there is none: give more images, or a larger --data.val_ratio"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES)
def test_mistakes_are_named(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str
) -> None:
    assert train(tmp_path / "run", *words(**changed)) == 2
    assert message in capsys.readouterr().err

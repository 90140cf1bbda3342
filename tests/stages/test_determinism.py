"""The same seed gives the same bits: in another process, with another hash seed, number of workers, and store.

That the order of batches changes nothing is tested where they are made: `tests/data/test_loader.py`,
`tests/data/test_batches.py`, `tests/contracts/test_pretexts.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vision_mtl.cli.command import main
from vision_mtl.training.checkpoint import checkpoints, read_tensors

pytestmark = pytest.mark.slow  # runs in processes of their own

ROOT = Path(__file__).parents[2]
CLOCK = {"seconds", "images_per_second", "wall_seconds", "gpu_seconds"}
PARTS = ("model", "average", "optimiser", "balancing")
OPTIONS = {
    "pretrain": ["--optim.ema_decay", "0.9"],
    "finetune": ["--balance.name", "dwa", "--balance.kwargs.window", "2", "--finetune.mixup", "0.2"],
    "joint": ["--balance.name", "uncertainty", "--joint.drop_path_ratio", "0.1"],
    "probe": [],
    "discover": [
        *("--discover.num_images", "8", "--discover.num_scorings", "1"),
        *("--pretexts.grid_mask.grid", "2", "--pretexts.downsample.factor", "2"),
    ],
}
PROGRAM = "import json, sys; from vision_mtl.cli.command import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


@pytest.fixture(scope="module")
def place(table_tasks: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every stage here with one worker, and in a separate process with three."""
    folder = tmp_path_factory.mktemp("twice")

    def words(stage: str, side: str, workers: int) -> list[str]:
        given = {"stage": stage, "run_dir": folder / side / stage, "data.root": folder / side / "root"}
        given |= {"data.num_workers": workers, "data.val_ratio": 0.25, "image_size": 32, "device": "cpu"}
        given |= {"backbone.name": "test_resnet"}
        if stage != "probe":
            given |= {"optim.steps": 4, "optim.batch_size": 8, "optim.learning_rate": 0.05, "track.num_pictures": 0}
            given |= {"track.tensorboard": "false", "track.log_every_steps": 1, "score.images": 8}
        given |= {"runtime.precision": "fp32", "runtime.num_threads": 1}
        found = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
        return found + table_tasks("letter", "size") + OPTIONS[stage]

    for stage in OPTIONS:
        assert main(words(stage, "here", 1)) == 0, stage
    runs = json.dumps([words(stage, "there", 3) for stage in OPTIONS])
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, runs], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def timeless(value: Any) -> Any:
    """Return the same without times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in CLOCK}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def contents(run: Path) -> dict[str, Any]:
    """Return a run's outputs by file and part: tensors, lines, tables, the result."""
    found: dict[str, Any] = {}
    for folder in [run, *sorted(run.glob("fold-*"))]:
        name = folder.relative_to(run).as_posix()
        for path in [*checkpoints(folder / "checkpoints")[-1:], *sorted((folder / "checkpoints").glob("best*"))]:
            for part in PARTS:
                tensors = read_tensors(path, part)
                found |= {f"{name}/{path.name} {part}.{key}": v.numpy().tobytes() for key, v in tensors.items()}
        if (folder / "metrics.jsonl").exists():
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            found[f"{name}/lines"] = [timeless(json.loads(line)) for line in lines]
    found |= {str(path.relative_to(run)): pq.read_table(path).to_pydict() for path in run.rglob("*.parquet")}
    found |= {str(path.relative_to(run)): path.read_text() for path in run.rglob("*.csv")}
    found["result"] = timeless(json.loads((run / "result.json").read_text()))
    return found


@pytest.mark.parametrize("stage", OPTIONS)
def test_the_same_seed_gives_the_same_bits(stage: str, place: Path) -> None:
    here, there = (contents(place / side / stage) for side in ("here", "there"))
    assert here.keys() == there.keys() and len(here) > 2
    assert [key for key in here if repr(here[key]) != repr(there[key])] == []  # repr: a NaN equals itself

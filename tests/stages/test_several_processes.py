"""Runs beside one another, and one run in several processes of which one dies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from vision_mtl.training.checkpoint import check, checkpoints, read_state

ROOT = Path(__file__).parents[2]
DYING = """
import os, signal, sys
from vision_mtl.stages.command import main
from vision_mtl.training.loop import Trainer
original = Trainer._step
def step(self):
    if os.environ["RANK"] == "1" and self.progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self)
Trainer._step = step
sys.exit(main(sys.argv[1:]))
"""


def words_of(folder: Path, images: Path, root: Path, **options: object) -> list[str]:
    given = {"stage": "pretrain", "run_dir": folder, "data.root": root, "image_size": 32, "optim.batch_size": 8}
    given |= {"backbone.name": "test_resnet", "device": "cpu", "data.unlabelled": f"images/{images}"}
    given |= {"track.tensorboard": "false", "optim.steps": 2, "runtime.precision": "fp32", **options}
    return [str(word) for key, value in given.items() for word in (f"--{key}", value)]


def test_four_runs_at_once_on_an_empty_store_build_it_once(image_folder: Path, tmp_path: Path) -> None:
    folders, options = [tmp_path / f"run-{seed}" for seed in range(4)], {"stderr": subprocess.STDOUT, "text": True}
    commands = [words_of(run, image_folder, tmp_path / "root", seed=seed) for seed, run in enumerate(folders)]
    runs = [
        subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, stdout=subprocess.PIPE, **options)
        for words in commands
    ]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert sum("decoding images/" in text for text in said) == 1
    assert len([entry for entry in (tmp_path / "root" / "store").iterdir() if entry.is_dir()]) == 1


def test_a_worker_that_dies_stops_the_run_and_leaves_a_whole_checkpoint(image_folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "dying.py"
    program.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{DYING}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    options = {"optim.steps": 6, "track.checkpoint_every_seconds": 0}
    words = words_of(tmp_path / "run", image_folder, tmp_path / "root", **options)
    done = subprocess.run([*launch, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert re.search("error: another process of this run has ended", done.stderr), done.stderr[-3000:]
    last = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    check(last)
    assert read_state(last)["step"] == 3

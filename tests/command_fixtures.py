"""Fixtures that run the command line on small images with a small backbone."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.core.run import Run
from vision_mtl.explorer.server import Server
from vision_mtl.explorer.site import open_site
from vision_mtl.inference.restore import restore_model
from vision_mtl.training.checkpoint import save_weights

Command = Callable[..., int]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two classes of 40 colour pictures."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(80):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        file = folder / ("round" if number % 2 else "square") / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        coarse.resize((40, 40), Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST).save(file)
    return folder


@pytest.fixture(scope="session")
def label_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 80 pictures, masks, and a CSV of labels: `letter`, `shade` and `size`, some blank.

    Part of each picture is bright. `letter` is a, b or c, `shade` is bright or dark, `size` is its red, 0 to 9.
    """
    folder = tmp_path_factory.mktemp("table")
    (folder / "masks").mkdir()
    random, lines = np.random.default_rng(1), ["file,letter,shade,size,blank"]
    for number in range(80):
        mask = np.zeros((40, 40), np.uint8)
        mask[:, : 10 + number % 20] = 1
        picture = np.stack([mask * (200 - 150 * (number % 2)) + 20] * 3, axis=-1).astype(np.int64)
        picture[..., 0] = 25 * (number % 10)
        picture = (picture + random.integers(-10, 10, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
        if number >= 20:
            Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
        letter = "abc"[number % 3] if number < 65 else ""
        shade = ("bright", "dark")[number % 2] if number >= 10 else ""
        lines.append(f"{number:02d}.png,{letter},{shade},{number % 10 if number % 4 else ''},")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def table_tasks(label_table: Path) -> Callable[..., list[str]]:
    """Return a function from names of the table's tasks to command-line words."""
    options = {
        "letter": {"label": "letter"},
        "shade": {"label": "shade"},
        "size": {"label": "size", "kind": "regression"},
        "seen": {"kind": "dense", "masks": str(label_table / "masks")},
        "blank": {"label": "blank"},
    }

    def words(*names: str) -> list[str]:
        found = []
        for name in names:
            for key, value in {"source": f"csv/{label_table}/labels.csv", **options[name]}.items():
                found += [f"--tasks.{name}.{key}", value]
        return found

    return words


@pytest.fixture(scope="session")
def supervise(root: Path) -> Command:
    """Return a function that runs a supervised stage for a few steps; its words override the defaults."""

    def run(stage: str, folder: Path, *words: object, backbone: bool = True) -> int:
        options = {"stage": stage, "run_dir": folder, "data.root": root, "device": "cpu", "track.tensorboard": "false"}
        options |= {"optim.steps": 4, "optim.batch_size": 12, "runtime.precision": "fp32", "data.val_ratio": 0.25}
        options |= {"image_size": 32, "backbone.name": "test_resnet"} if backbone else {}
        return main([str(w) for key, value in options.items() for w in (f"--{key}", value)] + [str(w) for w in words])

    return run


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return a function that sends Ctrl-C during the given step; None: none."""
    from vision_mtl.training.loop import Trainer

    original = Trainer._take_step

    def arm(step: int | None, number: signal.Signals = signal.SIGINT) -> None:
        def signalled(self: Trainer) -> object:
            if self.progress.step + 1 == step:
                os.kill(os.getpid(), number)
            return original(self)

        monkeypatch.setattr(Trainer, "_take_step", signalled)

    return arm


@pytest.fixture
def whole_and_parts(interrupt_at, tmp_path: Path) -> Callable[[Callable[[Path], int]], tuple[Path, Path]]:
    """Return a function that trains a run undisturbed, and one that is interrupted in step 3 and resumed."""

    def train(start: Callable[[Path], int]) -> tuple[Path, Path]:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        assert start(whole) == 0
        interrupt_at(3)
        assert start(parts) == 130
        interrupt_at(None)
        torch.rand(5)  # chance of the process must not matter
        assert start(parts) == 0
        return whole, parts

    return train


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def train(image_folder: Path, root: Path) -> Command:
    """Return a function that runs `--stage pretrain` for a few steps; its words override the defaults.

    It draws no pictures during training and writes no TensorBoard events: both take longer than the steps.
    """

    def run(folder: Path, *words: str, task: bool = True) -> int:
        options = {
            "stage": "pretrain",
            "run_dir": folder,
            "data.root": root,
            "image_size": 32,
            "backbone.name": "test_resnet",
            "optim.steps": 4,
            "optim.batch_size": 8,
            "track.num_pictures": 0,
            "track.tensorboard": "false",
            "device": "cpu",
        }
        options |= (
            {"tasks.shape.source": f"folder/{image_folder}"} if task else {"data.unlabelled": f"images/{image_folder}"}
        )
        return main([word for key, value in options.items() for word in (f"--{key}", str(value))] + list(words))

    return run


@pytest.fixture(scope="session")
def train_unscored(train: Command) -> Command:
    """Return the same without scores of repairs, for tests of something else: scoring takes a third of such a run."""
    return lambda folder, *words, **options: train(folder, "--score.images", "0", *words, **options)


@pytest.fixture(scope="session")
def trained(train: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a pretrain run with one task; do not change it."""
    folder = tmp_path_factory.mktemp("run") / "trained"
    assert train(folder, "--optim.steps", "3") == 0
    return folder


@pytest.fixture(scope="session")
def result() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="session")
def explorable(
    supervise: Command, table_tasks: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a joint run on the table, with four task heads of three kinds, repair heads and a classification pretext.

    A few steps leave heads near zero, so they are drawn at random: their predictions then differ between images.
    """
    folder = tmp_path_factory.mktemp("explored") / "run"
    tasks = table_tasks("letter", "shade", "size", "seen")
    assert supervise("joint", folder, *tasks, "--pretexts.rotation.weight", 1, "--optim.steps", 2) == 0
    model, state = restore_model(str(folder))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if name.startswith(("heads.", "task_heads.")):
            torch.nn.init.normal_(weight, std=0.3 if name.startswith("task_heads.") else 0.05)
    for task in model.task_specs:
        if hasattr(model.task_head(task), "temperature"):
            model.task_head(task).temperature.fill_(1.0)  # calibration on few images may saturate probabilities
    save_weights(folder / "checkpoints" / "best.safetensors", state, model.state_dict())
    return folder


@pytest.fixture(scope="session")
def open_page() -> Iterator[Callable[..., Server]]:
    """Return a function that serves a run's page from a separate thread until the tests end."""
    servers = []

    def serve(run: Path, **options: Any) -> Server:
        config = resolve("explore", {}, {"init_from": [str(run)], "device": ["cpu"], "runtime.precision": ["fp32"]})
        wanted = {"split": "test", "num_examples": 6, "num_neighbours": 4, "max_indexed": 25, "repair_with": None}
        server = Server(open_site(config, Run(run, "explore"), **(wanted | options)))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()

"""Small trainers: one that repairs images, one that learns tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.loader import TaskLoader
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.data.targets import Target
from vision_mtl.data.task_batches import TaskBatches
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.balancing.build import make_balancing
from vision_mtl.training.balancing.contract import LossTerm
from vision_mtl.training.balancing.shared import other_parameters, shared_parameters
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.repair import PretextObjective, RepairFeed, head_specs, measure_chance_losses
from vision_mtl.training.supervised import TaskFeed, TaskObjective, task_head_specs, task_losses

NAMES = ("grid_mask", "decolorise", "downsample", "rotation")
TASKS = ("letter", "shade", "marks", "size", "seen")
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root: Path = tmp_path_factory.mktemp("data")
    return build_pool(Data(unlabelled=["bundled/photos"], root=str(root)), {}, image_size=(32, 32))


@pytest.fixture
def make_trainer(pool: Pool) -> MakeTrainer:
    def make(backbone: str = "test_resnet", names: tuple[str, ...] = NAMES, images: int = 64, **options) -> Trainer:
        runtime = Runtime(precision=options.pop("precision", "fp32"))
        decoding = options.pop("decoder", "stages")
        width = 24 if decoding == "transformer" else 16  # a multiple of its six heads
        optim = Optim(**{"steps": 4, "max_seconds": None, "batch_size": 8, **options})
        torch.manual_seed(0)
        pretexts = {name: PRETEXTS.get(name)() for name in names}
        net = Backbone(backbone, image_size=(32, 32))
        decoder = DECODERS.get(decoding)(width=width, depth=1).build(
            MapSpec(net.channels, net.map_sizes, net.image_size)
        )
        model = SharedModel(net, decoder, head_specs(pretexts, 3))
        indices = pool.indices("train")[:images]
        mixture = Mixture(pretexts)
        objective = PretextObjective(mixture, measure_chance_losses(mixture, pool.gather(indices), Keys(0, 0, indices)))
        batches = Batches(indices, optim.batch_size, seed=0)
        accelerator = runtime.accelerator("cpu")
        feed = RepairFeed(pool, batches, 0, accelerator.device)
        return Trainer(model, objective, feed, optim, accelerator, runtime.layout(net), seed=0)

    return make


@pytest.fixture(scope="session")
def task_pool() -> Pool:
    """Return 60 training images of 32 pixels with overlapping labels of five tasks, of all kinds.

    `letter` is labelled for 0-29, `shade` for 20-44, `marks` for even numbers, `size` from 30 on, `seen` from 40 on;
    59 has only a label for `seen`.
    """
    random, number = np.random.default_rng(0), np.arange(60)
    coarse = random.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    masks = random.integers(0, 3, (20, 32, 32), dtype=np.uint8)
    masks[:, :8] = 255
    marks = np.where((number % 2 == 0)[:, None], random.integers(0, 2, (60, 4)), -1).astype(np.int8)
    size = np.where((number >= 30) & (number < 59), number * 3.0, np.nan)
    return Pool(
        blocks=[coarse.repeat(8, 1).repeat(8, 2)],
        identities=[str(n) for n in number],
        paths=[None] * 60,
        sources=["made"],
        member=np.ones((60, 1), bool),
        split=np.zeros(60, np.int8),
        cluster=number,
        targets={
            "letter": Target("single_label", ["a", "b", "c"], np.where(number < 30, number % 3, -1)),
            "shade": Target("single_label", ["x", "y"], np.where((number >= 20) & (number < 45), number % 2, -1)),
            "marks": Target("multi_label", ["p", "q", "r", "s"], marks),
            "size": Target("regression", [], size).in_unit_of(np.ones(60, bool)),
            "seen": Target("dense", ["0", "1", "2"], np.where(number >= 40, number - 40, -1), masks),
        },
        findings=[],
        details={},
    )


def options_of(pool: Pool, names: tuple[str, ...]) -> dict[str, Task]:
    return {name: Task(source="made", kind=pool.targets[name].kind, augment="none") for name in names}


@pytest.fixture
def make_task_trainer(task_pool: Pool) -> MakeTrainer:
    def make(
        backbone: str = "test_resnet", tasks: tuple[str, ...] = TASKS, balance: str | None = None, **options
    ) -> Trainer:
        kwargs, shared = options.pop("kwargs", {}), options.pop("shared", "all")
        optim = Optim(**{"steps": 4, "max_seconds": None, "batch_size": 12, "warmup_ratio": 0.0, **options})
        torch.manual_seed(0)
        net = Backbone(backbone, image_size=(32, 32))
        decoder = DECODERS.get("stages")(width=16, depth=1).build(MapSpec(net.channels, net.map_sizes, net.image_size))
        targets, train = {name: task_pool.targets[name] for name in tasks}, np.ones(len(task_pool), bool)
        model = SharedModel(net, decoder, {}, task_head_specs(targets))
        given = options_of(task_pool, tasks)
        rows = {name: task_pool.indices("train", task=name) for name in tasks}
        runtime = Runtime(precision="fp32")
        accelerator = runtime.accelerator("cpu")
        feed = TaskFeed(TaskLoader(task_pool, given, TaskBatches(rows, optim.batch_size, 0), 0, 1), accelerator.device)
        balancing = None
        if balance is not None:
            own = shared_parameters(net, shared)
            terms = [LossTerm(name=name) for name in tasks]
            balancing = make_balancing(balance, terms, own, other_parameters(model, own), kwargs)
        objective = TaskObjective(task_losses(given, targets, train))
        layout = runtime.layout(net)
        return Trainer(model, objective, feed, optim, accelerator, layout, seed=0, balancing=balancing)

    return make

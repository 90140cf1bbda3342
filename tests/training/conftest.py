"""A trainer small enough to run dozens of times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool, build_pool
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import Optim
from vision_mtl.training.repair import PretextObjective, RepairFeed, answers, chance_losses
from vision_mtl.training.runtime import Runtime

NAMES = ("grid_mask", "decolorise", "downsample", "rotation")
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root: Path = tmp_path_factory.mktemp("data")
    return build_pool(Data(unlabelled=["bundled/photos"], root=str(root)), {}, image_size=(32, 32))


@pytest.fixture
def make_trainer(pool: Pool) -> MakeTrainer:
    def make(backbone: str = "resnet10t", names: tuple[str, ...] = NAMES, images: int = 64, **options) -> Trainer:
        runtime = Runtime(precision=options.pop("precision", "fp32"))
        optim = Optim(**{"steps": 4, "max_seconds": None, "batch_size": 8, **options})
        torch.manual_seed(0)
        pretexts = {name: PRETEXTS.get(name)() for name in names}
        net = Backbone(backbone, image_size=(32, 32))
        decoder = DECODERS.get("stages")(MapSpec(net.channels, net.map_sizes, net.image_size), width=16, depth=1)
        model = SharedModel(net, decoder, answers(pretexts, 3))
        indices = pool.indices("train")[:images]
        mixture = Mixture(pretexts)
        objective = PretextObjective(mixture, chance_losses(mixture, pool.gather(indices), Keys(0, 0, indices)))
        batches = Batches(indices, optim.batch_size, seed=0)
        accelerator = runtime.accelerator("cpu")
        feed = RepairFeed(pool, batches, 0, accelerator.device)
        return Trainer(model, objective, feed, optim, accelerator, runtime.layout(net), seed=0)

    return make

"""Training on streamed images is training on stored ones, bit for bit; it leaves no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision_mtl.core.errors import UserError
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
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.repair import PretextObjective, RepairFeed, head_specs, measure_chance_losses

NAMES = ("grid_mask", "decolorise")


@pytest.fixture
def pool_of(jpegs: Path, tmp_path: Path) -> Callable[..., Pool]:
    return lambda stream: build_pool(
        Data(unlabelled=[f"images/{jpegs}"], root=str(tmp_path), stream=stream), {}, image_size=(32, 32)
    )


def make(pool: Pool, num_workers: int = 1, **options: object) -> Trainer:
    torch.manual_seed(0)
    pretexts = {name: PRETEXTS.get(name)() for name in NAMES}
    net = Backbone("test_resnet", image_size=(32, 32))
    decoder = DECODERS.get("stages")(width=16, depth=1).build(MapSpec(net.channels, net.map_sizes, net.image_size))
    indices, mixture = pool.indices("train"), Mixture(pretexts)
    chance = measure_chance_losses(mixture, pool.gather(indices[:8]), Keys(0, 0, indices[:8]))
    runtime = Runtime(precision="fp32")
    accelerator = runtime.accelerator("cpu")
    feed = RepairFeed(pool, Batches(indices, 8, seed=0), 0, accelerator.device, num_workers)
    optim = Optim(**{"steps": 5, "max_seconds": None, "batch_size": 8, **options})
    model = SharedModel(net, decoder, head_specs(pretexts, 3))
    return Trainer(model, PretextObjective(mixture, chance), feed, optim, accelerator, runtime.layout(net), seed=0)


def losses(trainer: Trainer) -> list[float]:
    found: list[float] = []
    trainer.fit(lambda progress, record: found.append(record.loss))
    trainer.feed.close()
    return found


@pytest.mark.parametrize(("num_workers", "accumulate"), [(1, 1), (4, 3)])
def test_streamed_steps_have_the_losses_of_stored_ones(pool_of, num_workers: int, accumulate: int) -> None:
    before = threading.active_count()
    stored = losses(make(pool_of(False), accumulate=accumulate))
    streamed = losses(make(pool_of(True), num_workers, accumulate=accumulate))
    assert len(stored) == 5 and streamed == stored  # to the bit
    assert threading.active_count() == before


def test_a_step_can_be_asked_for_again_and_names_its_images(pool_of) -> None:
    stored, streamed = (make(pool_of(stream)).feed for stream in (False, True))
    for step in (0, 1, 1, 7, 2):
        for ((a, keys), share), ((b, others), other) in zip(stored.at(step, 3), streamed.at(step, 3), strict=True):
            assert share == other and torch.equal(a, b)
            assert torch.equal(keys.uniform(), others.uniform())
    assert torch.equal(streamed.evidence(4)["images"], stored.evidence(4)["images"])
    streamed.close()


def test_a_file_that_breaks_in_training_ends_it_at_its_step(pool_of, jpegs: Path, monkeypatch) -> None:
    pool = pool_of(True)
    trainer = make(pool, num_workers=3)
    broken = int(trainer.feed.batches.at(1)[0][5])  # 14th of the first epoch: not seen before, however sides fell
    (block,) = pool.blocks
    encoded = block.source.encoded
    monkeypatch.setattr(
        block.source, "encoded", lambda item: encoded(item)[: 500 if item is block.items[broken] else None]
    )
    with pytest.raises(UserError, match=rf"'{block.items[broken].identity}' of images/.* cannot be decoded"):
        trainer.fit(lambda *_: None)
    assert trainer.progress.step == 1 and trainer.failed_cleanly  # the step before it is there to be saved
    trainer.feed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]

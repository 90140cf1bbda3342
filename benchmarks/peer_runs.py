"""The trainings of `peers.py`: the pool of photographs, and a backbone pretrained for some processor seconds.

Equal budget: the processor time of the training process, in one thread. Reading batches and damaging images counts,
opening the images and building the network does not. On a busy machine a step takes up to a sixth more processor time,
because processes share caches, and not the same for each method. So the time of a step is measured once, interleaved,
and every training gets the number of steps that fits the budget.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import numpy as np
import torch

from benchmarks.interleave import interleave
from benchmarks.peer_grid import BATCH, OURS, UNTRAINED, Arm, our_options
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.yaml_files import read_config
from vision_mtl.core.environment import environment
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.data.pool import Pool
from vision_mtl.models.backbone import Backbone
from vision_mtl.recipes import build
from vision_mtl.recipes.repair import build_network, build_trainer, training_images
from vision_mtl.training.checkpoint import save_weights
from vision_mtl.training.loop import Trainer

ROOT = Path(__file__).parent.parent
SIDE = 64
SPLIT_SEED = 1  # splits that no earlier search has seen
RATE_BLOCKS = 5  # steps of each method that its time is the median of
RECORD = "record.json"


def settings(own: dict[str, Any], seed: int = 0, steps: int = 10**6) -> RunConfig:
    """The photographs' config of --stage pretrain, with an arm's own part."""
    config = read_config(ROOT / "configs" / "pretrain_photos.yaml") | {"image_size": SIDE, "seed": seed} | own
    config["data"] = {**config["data"], "split_seed": SPLIT_SEED}
    config["optim"] = {"batch_size": BATCH, **own.get("optim", {}), "steps": steps, "max_seconds": None}
    return resolve("pretrain", config, {})


def silent_run() -> Run:
    """A run that writes and says nothing."""
    run = Run(Path("runs/peers"), "pretrain")
    run.is_main = False
    return run


@lru_cache(1)
def open_data() -> Pool:
    """All images, opened once in each process."""
    return build.open_pool(settings({}), silent_run())


def our_trainer(config: RunConfig, pool: Pool) -> Trainer:
    """What `--stage pretrain` would train."""
    pretexts, indices = build.build_pretexts(config), training_images(config, pool)
    model = build_network(config, pretexts)
    accelerator = config.runtime.accelerator("cpu")
    trainer = build_trainer(config, silent_run(), pool, indices, model, pretexts, accelerator)
    trainer.model.train()
    return trainer


def seconds_per_step(arms: Iterable[Arm], folder: Path) -> dict[str, float]:
    """Return `Arm.cost` -> processor seconds of a step, from `rates.json` or measured: medians of interleaved steps."""
    file = folder / "rates.json"
    if not file.exists():
        torch.set_num_threads(1)
        one_of_each = {arm.cost: arm for arm in arms if arm is not UNTRAINED}
        steps = {cost: partial(_method(arm, 0, 10**6)[0], 0.5) for cost, arm in one_of_each.items()}
        seconds = interleave(steps, blocks=RATE_BLOCKS, clock="cpu")
        atomic_write_json(file, {cost: float(np.median(values)) for cost, values in seconds.items()})
    return json.loads(file.read_text())


def pretrained(arm: Arm, seed: int, steps: int, folder: Path) -> Path:
    """Return the folder of a run with the arm's backbone, as other stages start from it; trained if it is not there.

    `record.json` in it says what the training took.
    """
    run = folder / f"{arm.name}-{seed}"
    if (run / RECORD).exists():
        return run
    torch.set_num_threads(1)
    pool, plain = open_data(), settings({}, seed)
    model = build_network(plain, build.build_pretexts(plain))
    took = {} if arm is UNTRAINED else _train(arm, seed, steps, model.backbone)
    path = run / "checkpoints" / "best.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, {"step": steps, **build.describe_model(plain, model, pool)}, model.state_dict())
    record = {"arm": arm.name, "seed": seed, "steps": steps, "images_seen": steps * arm.batch_size, **took}
    atomic_write_json(run / RECORD, {**record, "commit": environment()["commit"]})
    return run


def record_of(run: Path) -> dict[str, Any]:
    """What the training of a run took."""
    return json.loads((run / RECORD).read_text())


def _train(arm: Arm, seed: int, steps: int, backbone: Backbone) -> dict[str, float]:
    """Train the arm and copy its weights into `backbone`; return what it took."""
    step, copy_weights, data_seconds = _method(arm, seed, steps)
    wall, processor = time.perf_counter(), time.process_time()
    for number in range(steps):
        step(number / steps)
    spent = time.process_time() - processor
    copy_weights(backbone)
    return {
        "processor_seconds": spent,
        "wall_seconds": time.perf_counter() - wall,
        "data_share": data_seconds() / spent,  # of the processor time: damage; for lightly its transforms
    }


# a step at a share of training, what copies the trained weights, and the processor seconds that damage took
Method = tuple[Callable[[float], object], Callable[[Backbone], object], Callable[[], float]]


def _method(arm: Arm, seed: int, steps: int) -> Method:
    return (_ours if arm.library == OURS else _lightly)(arm, seed, steps)


def _ours(arm: Arm, seed: int, steps: int) -> Method:
    trainer = our_trainer(settings(our_options(arm), seed, steps), open_data())
    prepare, spent = trainer.objective.prepare, [0.0]

    def timed(*given: Any) -> Any:
        start = time.process_time()
        found = prepare(*given)
        spent[0] += time.process_time() - start
        return found

    trainer.objective.prepare = timed  # type: ignore[method-assign]

    def copy_weights(backbone: Backbone) -> None:
        backbone.load_state_dict(trainer.scored_model.backbone.state_dict())

    return lambda done: trainer.step(), copy_weights, lambda: spent[0]


def _lightly(arm: Arm, seed: int, steps: int) -> Method:
    from benchmarks.lightly_methods import contrast_views  # late: lightly is not needed for the rest

    pool = open_data()
    peer = contrast_views(pool, training_images(settings({}, seed), pool), seed, arm, workers=0)

    def copy_weights(backbone: Backbone) -> None:
        backbone.model.load_state_dict(peer.model.backbone.state_dict(), strict=False)

    return peer.step, copy_weights, lambda: peer.data_seconds

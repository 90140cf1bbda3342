"""The trainings of `peers.py`: the pool of photographs, and a backbone pretrained for some processor seconds.

Equal budget: the processor time of the training process, in one thread. Reading batches and damaging images counts,
opening the images and building the network does not. The schedule of the learning rate ends with the budget.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import vision_mtl  # isort: skip  # noqa: F401  first: see vision_mtl/core/torchvision_ops.py
import torch

from benchmarks.peer_grid import OURS, UNTRAINED, Arm, our_options
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
SIDE, BATCH = 64, 128
SPLIT_SEED = 1  # splits that no earlier search has seen
RECORD = "record.json"


def settings(own: dict[str, Any], seed: int = 0, seconds: float = 600.0) -> RunConfig:
    """The photographs' config of --stage pretrain, with an arm's own part."""
    config = read_config(ROOT / "configs" / "pretrain_photos.yaml") | {"image_size": SIDE, "seed": seed} | own
    config["data"] = {**config["data"], "split_seed": SPLIT_SEED}
    config["optim"] = {**own.get("optim", {}), "batch_size": BATCH, "max_seconds": seconds}
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


def spend(step: Callable[[float], object], seconds: float, clock: Callable[[], float] = time.process_time) -> int:
    """Call `step(share of the budget spent)` until `seconds` of the clock are spent; return the number of steps."""
    start, steps = clock(), 0
    while (spent := clock() - start) < seconds:
        step(spent / seconds)
        steps += 1
    return steps


def pretrained(arm: Arm, seed: int, seconds: float, folder: Path) -> Path:
    """Return the folder of a run with the arm's backbone, as other stages start from it; trained if it is not there.

    `record.json` beside it says what the training took.
    """
    run = folder / f"{arm.name}-{seed}"
    path = run / "checkpoints" / "best.safetensors"
    if (run / RECORD).exists():
        return run
    torch.set_num_threads(1)
    pool, plain = open_data(), settings({}, seed)
    model = build_network(plain, build.build_pretexts(plain))
    record = _train(arm, seed, seconds, pool, model.backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, {"step": record["steps"], **build.describe_model(plain, model, pool)}, model.state_dict())
    atomic_write_json(run / RECORD, {"arm": arm.name, "seed": seed, **record, "commit": environment()["commit"]})
    return run


def record_of(run: Path) -> dict[str, Any]:
    """What the training of a run took."""
    return json.loads((run / RECORD).read_text())


def _train(arm: Arm, seed: int, seconds: float, pool: Pool, backbone: Backbone) -> dict[str, Any]:
    """Train the arm and copy its weights into `backbone`; return what it took."""
    if arm is UNTRAINED:
        return {"steps": 0, "images_seen": 0, "processor_seconds": 0.0}
    step, copy_weights, data_seconds = (_ours if arm.library == OURS else _lightly)(arm, seed, seconds, pool)
    wall, processor = time.perf_counter(), time.process_time()
    steps = spend(step, seconds)
    spent = time.process_time() - processor
    copy_weights(backbone)
    return {
        "steps": steps,
        "images_seen": steps * BATCH,
        "processor_seconds": spent,
        "wall_seconds": time.perf_counter() - wall,
        "data_share": data_seconds() / spent,  # of the processor time: batches and, for lightly, its transforms
    }


Method = tuple[Callable[[float], object], Callable[[Backbone], object], Callable[[], float]]


def _ours(arm: Arm, seed: int, seconds: float, pool: Pool) -> Method:
    trainer = our_trainer(settings(our_options(arm), seed, seconds), pool)
    prepare, spent = trainer.objective.prepare, [0.0]

    def timed(*given: Any) -> Any:
        start = time.process_time()
        found = prepare(*given)
        spent[0] += time.process_time() - start
        return found

    trainer.objective.prepare = timed  # type: ignore[method-assign]

    def step(done: float) -> None:
        trainer.progress.seconds = done * seconds  # the schedule follows the processor's clock
        trainer.step()

    def copy_weights(backbone: Backbone) -> None:
        backbone.load_state_dict(trainer.scored_model.backbone.state_dict())

    return step, copy_weights, lambda: spent[0]


def _lightly(arm: Arm, seed: int, seconds: float, pool: Pool) -> Method:
    from benchmarks.lightly_methods import simclr  # late: `speed` of others and tests do without it

    peer = simclr(pool, training_images(settings({}, seed), pool), seed, arm.setting, workers=0)

    def copy_weights(backbone: Backbone) -> None:
        backbone.model.load_state_dict(peer.model.backbone.state_dict(), strict=False)

    return peer.step, copy_weights, lambda: peer.data_seconds

"""How near does a step of training come to the model's own arithmetic, and where does the rest go?

    python benchmarks/step.py [--backbones resnet18 convnextv2_atto vit_tiny] [--blocks 30] [--threads 2] [--clock wall]

End to end is the trainer's step on the default mixture of three pretexts: gather, damage, forward, losses, backward,
clip, optimiser. The bound is the same model in the same precision on one batch that lies damaged in memory, with mean
squared error to a fixed picture as its loss: forward, backward, clip, optimiser. Data lies in memory, then in a
memory map. Phases are timed in steps of their own. 64 pixels, batch 128. Writes `benchmarks/results/step.json`. About
ten minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
import torch

from benchmarks.interleave import CLOCKS, interleave, shown, speed_ratio, summary
from benchmarks.record import write
from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.label_kinds import TaskHeadSpec
from vision_mtl.data.pool import Pool
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import build_optimiser
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.repair import PretextObjective, RepairFeed, head_specs, measure_chance_losses

SIDE, BATCH, IMAGES = 64, 128, 8192
MIXTURE = ("grid_mask", "decolorise", "downsample")
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet18", {}),
    "convnextv2_atto": ("convnextv2_atto", {}),
    "vit_tiny": ("vit_tiny_patch16_224", {"patch_size": 8}),
}
TARGET = 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--places", nargs="+", choices=("memory", "memory_map"), default=["memory", "memory_map"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pool = drawn_pool()
        pools = {place: pool if place == "memory" else mapped(pool, Path(folder)) for place in given.places}
        for name in given.backbones:
            rows.append(measure(name, pools, given.blocks, given.clock))
            print(line(rows[-1]), file=sys.stderr, flush=True)
    write(
        "step",
        {"clock": given.clock, "image_size": SIDE, "batch": BATCH, "images": IMAGES, "target": TARGET, "rows": rows},
    )
    print(f"| backbone | bound, images/s | {' | '.join(given.places)} | phases, share of the step |")
    print(f"|---|---|{'---|' * (len(given.places) + 1)}")
    for row in rows:
        print(line(row))


def measure(name: str, pools: dict[str, Pool], blocks: int, clock: str) -> dict[str, Any]:
    """End to end against the bound, for each place of the data, and the phases."""
    places = list(pools)
    first = pools[places[0]]
    trainers = {place: build(name, pool) for place, pool in pools.items()}
    variants = {place: lambda trainer=trainer: one_step(trainer) for place, trainer in trainers.items()}
    seconds = interleave({"bound": bound(build(name, first)), **variants}, blocks=blocks, clock=clock)
    return {
        "backbone": name,
        "precision": trainers[places[0]].accelerator.mixed_precision,
        "seconds": {variant: summary(values) for variant, values in seconds.items()},
        "to_bound": {place: speed_ratio(seconds, place, "bound") for place in pools},
        "phases": phases(trainers[places[0]], max(blocks // 3, 3), CLOCKS[clock]),
    }


def build(
    name: str,
    pool: Pool,
    *,
    batch: int = BATCH,
    grid: int = 4,
    heads: int = 0,
    layout: torch.memory_format | None = None,
    **settings: Any,
) -> Trainer:
    """Build what `pretrain` builds by default, at this benchmark's batch, with `heads` of tasks that have no labels.

    `layout` is the memory format, None: the default one; `settings` are other arguments of the trainer.
    """
    architecture, kwargs = BACKBONES[name]
    torch.manual_seed(0)
    runtime, optim = Runtime(), Optim(steps=10**6, max_seconds=None, batch_size=batch)
    pretexts = {name: PRETEXTS.get(name)(**({"grid": grid} if name == "grid_mask" else {})) for name in MIXTURE}
    net = Backbone(architecture, kwargs=kwargs, image_size=pool.shape[1:])
    decoder = DECODERS.get("stages")().build(MapSpec(net.channels, net.map_sizes, net.image_size))
    tasks = {f"task{number}": TaskHeadSpec("single_label", 10) for number in range(heads)}
    model, mixture = SharedModel(net, decoder, head_specs(pretexts, 3), tasks), Mixture(pretexts)
    indices = pool.indices("train")
    chance = measure_chance_losses(mixture, pool.gather(indices[:BATCH]), Keys(0, 0, indices[:BATCH]))
    accelerator = runtime.accelerator("auto")
    feed = RepairFeed(pool, Batches(indices, batch, seed=0), 0, accelerator.device)
    memory_format = layout or runtime.layout(net)
    objective = PretextObjective(mixture, chance)
    trainer = Trainer(model, objective, feed, optim, accelerator, memory_format, seed=0, **settings)
    trainer.model.train()
    return trainer


def one_step(trainer: Trainer) -> None:
    """One step as `Trainer.fit` takes it; what it does once a run (walking through the modules) is not in it."""
    trainer.step()


def bound(trainer: Trainer) -> Callable[[], None]:
    """A step of the same model that does nothing but its arithmetic."""
    model = trainer.model
    batch, _ = trainer.feed.at(0, 1)[0]
    prepared = trainer.objective.prepare(batch)
    inputs = prepared.images.to(memory_format=trainer.layout)
    optimiser = build_optimiser(model, trainer.optim)
    for group in optimiser.param_groups:
        group["lr"] = 1e-4
    with torch.no_grad(), trainer.accelerator.autocast():
        targets = {k: torch.zeros_like(v[0], dtype=torch.float32) for k, v in model(inputs, prepared.requests).items()}

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with trainer.accelerator.autocast():
            predictions = model(inputs, prepared.requests, prepared.drop_draw, prepared.shown)
        loss = sum((predictions[k][0].float() - target).square().mean() for k, target in targets.items())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.optim.clip_norm)
        optimiser.step()

    return step


def phases(trainer: Trainer, steps: int, now: Callable[[], float]) -> dict[str, float]:
    """Each phase's median share of a step, and `seconds`, the median step. `losses` are the targets and errors."""
    spent: dict[str, list[float]] = defaultdict(list)
    parts = {
        "gather": (trainer.feed, "at"),
        "damage": (trainer.objective, "prepare"),
        "forward": (trainer.model, "forward"),
        "losses": (trainer.objective, "measure"),
        "backward": (trainer.accelerator, "backward"),
        "clip": (torch.nn.utils, "clip_grad_norm_"),
        "optimiser": (trainer.optimiser, "step"),
    }
    with timed(parts, spent, now):
        for _ in range(steps):
            start = now()
            one_step(trainer)
            spent["step"].append(now() - start)
    median = {name: float(np.median(values)) for name, values in spent.items()}
    whole = median.pop("step")
    shares = {name: seconds / whole for name, seconds in median.items()}
    return {**shares, "rest": 1 - sum(shares.values()), "seconds": whole}


@contextmanager
def timed(parts: dict[str, tuple[Any, str]], spent: dict[str, list[float]], now: Callable[[], float]) -> Iterator[None]:
    """While open, each call of a method is clocked; objects that refuse a new attribute are frozen dataclasses."""
    before = {}
    for name, (owner, method) in parts.items():
        original = before[name] = getattr(owner, method)

        def clocked(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            start = now()
            result = _original(*args, **kwargs)
            spent[_name].append(now() - start)
            return result

        object.__setattr__(owner, method, clocked)
    try:
        yield
    finally:
        for name, (owner, method) in parts.items():
            object.__setattr__(owner, method, before[name])


def drawn_pool() -> Pool:
    """Coarse coloured noise: every pretext has something to repair, and no image is like another."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (IMAGES, SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    return Pool(
        blocks=[coarse.repeat(8, 1).repeat(8, 2)],
        identities=[str(number) for number in range(IMAGES)],
        paths=[None] * IMAGES,
        sources=["drawn"],
        member=np.ones((IMAGES, 1), bool),
        split=np.zeros(IMAGES, np.int8),
        cluster=np.arange(IMAGES),
        targets={},
        findings=[],
        details={},
    )


def mapped(pool: Pool, folder: Path) -> Pool:
    """The same images in a memory-mapped file, as the store opens it."""
    np.save(folder / "images.npy", pool.blocks[0])
    return replace(pool, blocks=[np.load(folder / "images.npy", mmap_mode="r")])


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    images = BATCH / row["seconds"]["bound"]["median"]
    shares = ", ".join(f"{k} {v:.1%}" for k, v in row["phases"].items() if k != "seconds")
    places = " | ".join(shown(ratio) for ratio in row["to_bound"].values())
    return f"| {row['backbone']} | {images:.0f} | {places} | {shares} |"


if __name__ == "__main__":
    main()

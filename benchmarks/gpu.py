"""How near does masked pretraining of a large ViT come to what a GPU can do?

    python benchmarks/gpu.py [--batch 256] [--blocks 30] [--compile] [--peak TFLOPS]
    python benchmarks/gpu.py --device cpu --small

ViT-B/16 at 224 pixels, 75 % of the patches hidden, a decoder of 8 blocks of width 512, bfloat16. It states images a
second; the share of the card's dense bfloat16 peak that the model's own arithmetic reaches (encoder, decoder and head,
forward and backward, counted by PyTorch); the ratio to the same recipe written plainly in PyTorch, as its paper has it
(He et al., "Masked autoencoders are scalable vision learners", 2022, https://arxiv.org/abs/2111.06377); the damage's
share of a step (alone, so that what a step hides behind other work counts in full); both losses after it all, in units
of the loss of a grey answer; the memory that both took; and how many graphs were compiled after the warm-up, which
without `--compile` is none. Images are drawn once and lie in memory as uint8. Writes `benchmarks/results/gpu.json`.
`--small` is the same in miniature: it shows that the code runs, and its figures say nothing. Without the device, or
without memory for the batch, it ends with exit code 2.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleave import interleave, shown, speed_ratio, summary
from benchmarks.record import write
from vision_mtl.core.rng import Keys
from vision_mtl.data.batches import Batches
from vision_mtl.data.pool import Pool, image_tensor
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec, sine_positions
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import build_optimiser
from vision_mtl.training.options import Optim, Runtime
from vision_mtl.training.repair import PretextObjective, RepairFeed, measure_chance_losses

from timm.models.vision_transformer import Block  # isort: skip  # after the project: it mends torchvision's import
from vision_mtl.training.repair import head_specs

RATIO = 0.75
# dense bfloat16 TFLOP/s without sparsity, from NVIDIA's data sheets; the first name that stands in the card's counts
PEAKS = {"H200 NVL": 835, "H200": 989, "GH200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "B200": 2250}
PEAKS |= {"A100": 312, "L40S": 362, "L40": 181, "L4": 121, "A10": 125, "RTX 4090": 165, "RTX 3090": 71}
TARGETS = {"utilisation": 0.5, "damage_share": 0.02, "recompiles": 0}
WARM_UP = 5  # steps, of which the first compile
CALLS = 8  # steps of a turn: the device waits for its first images only, as in a run
GREY, SPREAD = 0.5, 0.25  # about an architecture's own mean and standard deviation


@dataclass(frozen=True)
class Recipe:
    """What is trained. Lengths are pixels, `name` an architecture of timm."""

    name: str
    side: int
    patch: int
    width: int
    depth: int
    heads: int
    images: int


FULL = Recipe("vit_base_patch16_224", 224, 16, 512, 8, 16, 4096)
SMALL = Recipe("vit_tiny_patch16_224", 32, 8, 32, 1, 2, 64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--peak", type=float, help="dense bfloat16 TFLOP/s of a card that is not in the table")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA GPU, and there is none here.", file=sys.stderr)
        return 2
    recipe, batch = (SMALL if given.small else FULL), given.batch or (8 if given.small else 256)
    try:
        found = measure(recipe, batch, given)
    except torch.OutOfMemoryError:
        print(f"{batch} images a step do not fit into the device's memory: give a smaller --batch.", file=sys.stderr)
        return 2
    if not given.small:
        write("gpu", {"recipe": vars(recipe), "batch": batch, "compile": given.compile, "targets": TARGETS, **found})
    print("\n".join(lines(found)))
    return 0


def measure(recipe: Recipe, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the recipe on the device."""
    trainer = build(recipe, batch, given.device, given.compile)
    plain = plain_step(recipe, batch, trainer)
    for _ in range(WARM_UP):
        trainer.step()
        plain()
    # what could fail comes before what takes long
    flops, damage = model_flops(trainer), damage_seconds(trainer, given.blocks)
    peak = given.peak or peak_of(torch.cuda.get_device_name() if given.device == "cuda" else "")
    before = graphs()
    calls = 1 if given.small else CALLS
    seconds = interleave({"ours": trainer.step, "plain": plain}, blocks=given.blocks, calls=calls, warm_up=0)
    recompiled = graphs() - before
    step = float(np.median(seconds["ours"]))
    return {
        "images_per_second": batch / step,
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "to_plain": speed_ratio(seconds, "ours", "plain"),
        "model_tflop_per_step": flops / 1e12,
        "peak_tflops": peak,
        "utilisation": None if peak is None else flops / step / 1e12 / peak,
        "damage_share": damage / step,
        "recompiles": recompiled,
        "losses": {"ours": trainer.step().loss, "plain": float(plain()) / grey_loss(trainer.feed.pool)},
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if given.device == "cuda" else None,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The figures, a line each."""
    used = found["utilisation"]
    share = "unknown: give --peak" if used is None else f"{used:.1%} of {found['peak_tflops']:.0f} TFLOP/s"
    return [
        f"images a second: {found['images_per_second']:.0f}",
        f"model FLOP utilisation: {share}",
        f"to plain PyTorch: {shown(found['to_plain'])}",
        f"damage, share of a step: {found['damage_share']:.1%}",
        f"graphs compiled after the warm-up: {found['recompiles']}",
        f"loss, in units of a grey answer's: ours {found['losses']['ours']:.2f}, plain {found['losses']['plain']:.2f}",
        "memory: " + ("not measured" if found["memory_gb"] is None else f"{found['memory_gb']:.1f} GB for both"),
    ]


def peak_of(name: str) -> float | None:
    """Dense bfloat16 TFLOP/s of the card of that name; None if it is not in the table, or is a part of a card."""
    if "MIG" in name.split():
        return None
    others = r"(?! (?:Ti|D|SUPER|Laptop)\b)"  # of the same number, with another peak
    return next((float(peak) for card, peak in PEAKS.items() if re.search(rf"\b{card}\b{others}", name)), None)


def graphs() -> int:
    """How many graphs `torch.compile` has made so far."""
    return counters["stats"]["unique_graphs"]


def pool_of(recipe: Recipe) -> Pool:
    """Drawn images, in memory as uint8."""
    random, count = np.random.default_rng(0), recipe.images
    images = random.integers(0, 256, (count, recipe.side // 8, recipe.side // 8, 3), dtype=np.uint8)
    names, rows = [str(number) for number in range(count)], np.arange(count)
    member, split = np.ones((count, 1), bool), np.zeros(count, np.int8)
    blocks = [images.repeat(8, 1).repeat(8, 2)]
    return Pool(blocks, names, [None] * count, ["drawn"], member, split, rows, {}, [], {})


def build(recipe: Recipe, batch: int, device: str, compiled: bool) -> Trainer:
    """What `pretrain` builds for the recipe."""
    torch.manual_seed(0)
    pool, runtime = pool_of(recipe), Runtime(precision="bf16", compile=compiled)
    cells = recipe.side // recipe.patch
    pretexts = {"grid_mask": PRETEXTS.get("grid_mask")(grid=cells, hidden="ratio", ratio=RATIO, residual=False)}
    kwargs = {} if recipe.patch == 16 else {"patch_size": recipe.patch}
    net = Backbone(recipe.name, kwargs=kwargs, image_size=(recipe.side, recipe.side))
    maps = MapSpec(net.channels, net.map_sizes, net.image_size)
    decoder = DECODERS.get("transformer")(width=recipe.width, depth=recipe.depth, num_heads=recipe.heads).build(maps)
    mixture, indices = Mixture(pretexts), pool.indices("train")
    sample = indices[:batch]
    objective = PretextObjective(mixture, measure_chance_losses(mixture, pool.gather(sample), Keys(0, 0, sample)))
    accelerator = runtime.accelerator(device)
    feed = RepairFeed(pool, Batches(indices, batch, seed=0), 0, accelerator.device)
    optim = Optim(steps=10**6, max_seconds=None, batch_size=batch)
    model = SharedModel(net, decoder, head_specs(pretexts, 3))
    trainer = Trainer(model, objective, feed, optim, accelerator, runtime.layout(net), 0, compiled)
    trainer.model.train()
    return trainer


def model_flops(trainer: Trainer) -> float:
    """Floating-point operations of one step's encoder, decoder and head, forward and backward, as PyTorch counts."""
    prepared = trainer.objective.prepare(trainer.feed.at(0, 1)[0][0])
    with FlopCounterMode(display=False) as counter:
        with trainer.accelerator.autocast():
            found = trainer.model(prepared.images, prepared.requests, prepared.drop_draw, prepared.shown)
        sum(p.float().square().mean() for readouts in found.values() for p in readouts).backward()
    trainer.optimiser.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def grey_loss(pool: Pool) -> float:
    """The loss of `PlainMAE` where every patch is answered with grey."""
    pixels = pool.blocks[0][:64] / 255  # they are all drawn alike
    return float(np.square((pixels - GREY) / SPREAD).mean())


def damage_seconds(trainer: Trainer, blocks: int) -> float:
    """Median seconds of damaging a batch."""
    batch = trainer.feed.at(0, 1)[0][0]
    found = []
    for _ in range(blocks):
        wait(trainer.accelerator.device)
        start = time.perf_counter()
        trainer.objective.prepare(batch)
        wait(trainer.accelerator.device)
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class PlainMAE(nn.Module):
    """The recipe without any of the project: patches, a random quarter of them encoded, the others decoded."""

    def __init__(self, recipe: Recipe, encoder: nn.Module) -> None:
        super().__init__()
        self.patch, self.encoder, wide = recipe.patch, encoder, encoder.embed_dim
        cells = recipe.side // recipe.patch
        self.embed = nn.Linear(wide, recipe.width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, recipe.width))
        self.register_buffer("places", sine_positions(cells, cells, recipe.width))
        self.blocks = nn.Sequential(*(Block(recipe.width, recipe.heads, qkv_bias=True) for _ in range(recipe.depth)))
        self.norm, self.head = nn.LayerNorm(recipe.width), nn.Linear(recipe.width, recipe.patch**2 * 3)

    def forward(self, images: Tensor) -> Tensor:
        """The loss of images (B, 3, H, W): mean squared error over the hidden patches."""
        net, p = self.encoder, self.patch
        tokens = net._pos_embed(net.patch_embed(images))  # (B, 1 + N, D)
        first, tokens = tokens[:, :1], tokens[:, 1:]
        count = tokens.shape[1]
        kept = round((1 - RATIO) * count)
        order = torch.rand(len(images), count, device=images.device).argsort(1)
        back, seen = order.argsort(1), order[:, :kept, None]
        x = net.blocks(torch.cat((first, tokens.gather(1, seen.expand(-1, -1, tokens.shape[2]))), 1))
        x = self.embed(net.norm(x)[:, 1:])  # (B, n, width)
        x = torch.cat((x, self.hidden.to(x.dtype).expand(len(x), count - kept, -1)), 1)
        x = x.gather(1, back[..., None].expand(-1, -1, x.shape[2])) + self.places
        predicted = self.head(self.norm(self.blocks(x))).float()  # (B, N, p * p * 3)
        wanted = images.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        error = (predicted - wanted).square().mean(2)
        return (error * (back >= kept)).sum() / (back >= kept).sum()


def plain_step(recipe: Recipe, batch: int, ours: Trainer) -> Callable[[], Tensor]:
    """A step of `PlainMAE`, which gives its loss and does not wait for it.

    The same encoder, pool, batch, optimiser and precision; nothing is scored or recorded.
    """
    torch.manual_seed(0)
    device, pool = ours.accelerator.device, ours.feed.pool
    kwargs = {} if recipe.patch == 16 else {"patch_size": recipe.patch}
    model = PlainMAE(recipe, Backbone(recipe.name, kwargs=kwargs, image_size=(recipe.side, recipe.side)).model)
    model.to(device).train()
    optimiser = build_optimiser(model, ours.optim)
    for group in optimiser.param_groups:
        group["lr"] = 1e-4
    called = torch.compile(model) if ours.compiled else model
    random = np.random.default_rng(0)

    def step() -> Tensor:
        images = image_tensor(pool.blocks[0][random.integers(recipe.images, size=batch)], device)
        images = (images - GREY) / SPREAD
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = called(images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), ours.optim.clip_norm)
        optimiser.step()
        return loss.detach()

    return step


if __name__ == "__main__":
    sys.exit(main())

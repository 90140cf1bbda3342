"""What does each damage cost, against the libraries that users would take for it?

    python benchmarks/pretexts.py [--blocks 30] [--threads 2] [--clock wall]

One hidden cell of 4 x 4, 75 % of 8 x 8 patches, grey, and reduction by 4, at 64 pixels (batch 256) and 224 (batch 64),
against kornia's augmentation classes, kornia's functions, torchvision's v2 transforms on a batch and albumentations
image by image (on uint8, as it is used, then made a batch). Every output goes through a convolution, since a grey image
of three expanded channels costs nothing until it is read. So a damage that cost nothing at all would still take the
time of `reading alone`, and `at most` is how many times kornia's class it would then be. Peers do not all do the same:
torchvision hides one place in the whole batch, none lays a grid or fills with the mean of what is visible,
albumentations' holes may overlap. `difference` is our largest to a reference written here.

Everything is measured twice, as `--runtime.allocator` has it: `system`, the default, where a fresh output of 38 MB at
224 pixels pays for its pages unless the heap happens to have room for it; and `keep`, where freed memory is used again.
Writes `benchmarks/results/pretexts.json`. Three minutes on 2 cores.
"""
# B images, C channels, H W pixels

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import albumentations
import cv2
import kornia
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.interleave import CLOCKS, interleave, shown, speed_ratio, summary
from benchmarks.record import write
from vision_mtl.core.memory import keep_freed_memory
from vision_mtl.core.rng import Keys
from vision_mtl.core.torchvision_ops import install
from vision_mtl.pretext.contract import Pretext
from vision_mtl.pretext.decolorise import Decolorise
from vision_mtl.pretext.downsample import Downsample
from vision_mtl.pretext.grid_mask import GridMask

install()  # torchvision's operators may be missing beside this PyTorch
from torchvision.transforms import v2  # noqa: E402

SIZES = {64: 256, 224: 64}  # pixels: batch
FACTOR, CELLS, PATCHES, RATIO = 4, 4, 8, 0.75
HOLES = int(RATIO * PATCHES**2)
OURS: dict[str, Pretext] = {
    "one cell": GridMask(grid=CELLS, fill="zero"),
    "one cell, mean colour": GridMask(grid=CELLS),
    "patches": GridMask(grid=PATCHES, hidden="ratio", ratio=RATIO, fill="zero"),
    "grey": Decolorise(),
    "reduced": Downsample(factor=FACTOR),
}
ALLOCATORS = ("system", "keep")  # in this order: what was kept cannot be undone
READING = "reading alone"  # of undamaged images
PEERS = ("kornia class", "kornia function", "torchvision", "albumentations")
TARGETS = {"to_fastest": 0.9, "to_kornia_class": 5.0}
TOLERANCE = 1e-5  # of our outputs, pixels in [0, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rows = []
    for allocator in ALLOCATORS:
        if allocator == "keep" and not keep_freed_memory(True):
            print("this C library cannot be told to keep freed memory: keep is left out", file=sys.stderr)
            continue
        for side, batch in SIZES.items():
            pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
            for damage in OURS:
                rows.append({"allocator": allocator, **measure(damage, pixels, given)})
                print(line(rows[-1]), file=sys.stderr, flush=True)
    write("pretexts", {"clock": given.clock, "targets": TARGETS, "tolerance": TOLERANCE, "rows": rows})
    heads = " | ".join(("ours, images/s", *PEERS, "to the fastest", "to kornia's class", "at most", "difference"))
    print(f"| allocator | damage | pixels | {heads} |\n|---|---|---|{'---|' * (len(PEERS) + 5)}")
    for row in rows:
        print(line(row))


def measure(damage: str, pixels: np.ndarray, given: argparse.Namespace) -> dict[str, Any]:
    """Ours and every peer that has this damage, on the same images."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
    pretext, side = OURS[damage], images.shape[-1]
    read = torch.rand(1, 3, 4, 4)
    keys, shape = Keys(0, 0, torch.arange(len(images))), tuple(images.shape[1:])

    def ours() -> Tensor:
        return pretext.corrupt(images, pretext.sample(keys.select(slice(None)), shape))

    made = {"ours": ours, READING: lambda: images, **peers(damage, images, pixels, side)}
    variants = {name: lambda make=make: F.conv2d(make(), read, stride=4) for name, make in made.items()}
    with torch.no_grad():
        seconds = interleave(variants, blocks=given.blocks, warm_up=1, clock=given.clock)
        difference = float((ours() - reference(pretext, images, keys)).abs().max())
    fastest = min((n for n in seconds if n in PEERS), key=lambda n: float(np.median(seconds[n])))
    return {
        "damage": damage,
        "image_size": side,
        "batch": len(images),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "fastest": fastest,
        "to_fastest": speed_ratio(seconds, "ours", fastest),
        "to_kornia_class": speed_ratio(seconds, "ours", "kornia class"),
        "at_most_to_kornia_class": speed_ratio(seconds, READING, "kornia class"),
        "difference": difference,
    }


def peers(damage: str, images: Tensor, pixels: np.ndarray, side: int) -> dict[str, Callable[[], Tensor]]:
    """What each peer offers for the damage; absent where it has none."""
    k, f, small = kornia.augmentation, kornia.geometry, (side // FACTOR, side // FACTOR)
    area = 1 / CELLS**2
    if damage.startswith("one cell"):
        erase = k.RandomErasing(scale=(area, area), ratio=(1.0, 1.0), p=1.0)
        tv_erase = v2.RandomErasing(p=1.0, scale=(area, area), ratio=(1.0, 1.0))
        hole = (1 / CELLS, 1 / CELLS)
        cut = albumentations.CoarseDropout(num_holes_range=(1, 1), hole_height_range=hole, hole_width_range=hole, p=1)
        return {"kornia class": lambda: erase(images), "torchvision": lambda: tv_erase(images), **each(cut, pixels)}
    if damage == "patches":
        patchwise = k.PatchSequential(
            k.RandomErasing(scale=(1.0, 1.0), ratio=(1.0, 1.0), p=RATIO),
            grid_size=(PATCHES, PATCHES),
            patchwise_apply=False,
        )
        hole = (1 / PATCHES, 1 / PATCHES)
        cut = albumentations.CoarseDropout(
            num_holes_range=(HOLES, HOLES), hole_height_range=hole, hole_width_range=hole, p=1
        )
        return {"kornia class": lambda: patchwise(images), **each(cut, pixels)}
    if damage == "grey":
        grey = k.RandomGrayscale(p=1.0)
        return {
            "kornia class": lambda: grey(images),
            "kornia function": lambda: kornia.color.rgb_to_grayscale(images).expand_as(images),
            "torchvision": lambda: v2.functional.rgb_to_grayscale(images, num_output_channels=3),
            **each(albumentations.ToGray(p=1), pixels),
        }
    down, up = k.Resize(small, antialias=True), k.Resize((side, side), resample="bicubic")
    scale = albumentations.Downscale(
        scale_range=(1 / FACTOR, 1 / FACTOR),
        interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_CUBIC},
        p=1,
    )
    cubic = v2.InterpolationMode.BICUBIC
    return {
        "kornia class": lambda: up(down(images)),
        "kornia function": lambda: f.resize(
            f.resize(images, small, "area"), (side, side), "bicubic", align_corners=False
        ),
        "torchvision": lambda: v2.functional.resize(
            v2.functional.resize(images, small, antialias=True), (side, side), cubic
        ),
        **each(scale, pixels),
    }


def each(transform: albumentations.BasicTransform, pixels: np.ndarray) -> dict[str, Callable[[], Tensor]]:
    """Albumentations, image by image, then a batch of floats."""

    def call() -> Tensor:
        changed = np.stack([transform(image=image)["image"] for image in pixels])
        return torch.from_numpy(changed).permute(0, 3, 1, 2).float().div_(255)

    return {"albumentations": call}


def reference(pretext: Pretext, images: Tensor, keys: Keys) -> Tensor:
    """Our damage written plainly: pixel by pixel weights, a loop over images, PyTorch's own interpolation."""
    if isinstance(pretext, Decolorise):
        return (images.double() * torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, True).expand(-1, 3, -1, -1)
    if isinstance(pretext, Downsample):
        small = F.interpolate(images, scale_factor=1 / FACTOR, mode="area")
        return F.interpolate(small, size=images.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
    shape = tuple(images.shape[1:])
    mask, found = pretext.mask(pretext.sample(keys.select(slice(None)), shape), shape), images.clone()
    for image, hidden in zip(found, mask[:, 0], strict=True):
        colours = image[:, ~hidden].double().mean(1) if pretext.fill == "mean" else torch.zeros(3, dtype=torch.double)
        image[:, hidden] = colours.float()[:, None]
    return found


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    speed = {name: f"{row['batch'] / time['median']:,.0f}" for name, time in row["seconds"].items()}
    speeds = " | ".join(speed.get(name, "none") for name in ("ours", *PEERS))
    ratios = " | ".join(shown(row[key]) for key in ("to_fastest", "to_kornia_class", "at_most_to_kornia_class"))
    what = f"{row['allocator']} | {row['damage']} | {row['image_size']}"
    return f"| {what} | {speeds} | {ratios} | {row['difference']:.0e} |"


if __name__ == "__main__":
    main()

"""Frozen features of a pool's images, from a backbone with BatchNorm statistics of clean images."""
# n images, B images of a batch, D feature width, h w positions of a map

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from vision_mtl.core.errors import unknown
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.crops import crops_of
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.batch_norm import copy_for_one

CLEAN_IMAGES = 512  # for re-estimating BatchNorm statistics: the error of a channel's mean is then below 5 % of its std
PIXEL_SIDE = 16  # of the pixel features: 768 numbers for colour, about as many as a backbone's features
# a mean measures how much of a pattern there is, a maximum whether it occurs; small objects vanish in a mean
POOLINGS = ("mean", "max")
Autocast = Callable[[], AbstractContextManager[object]]
Report = Callable[[float], None]  # receives the share done, in [0, 1]


def reported(batches: Sequence[Tensor], report: Report) -> Iterator[Tensor]:
    """Yield the batches, and report the share of them that is done after each."""
    for number, batch in enumerate(batches, start=1):
        yield batch
        report(number / len(batches))


def inference_batch_size(device: torch.device) -> int:
    """Return the batch size for inference.

    On a CPU it is small, so that buffers are reused instead of returned to the system: a resnet18 at 64 pixels is as
    fast as with 256 images, in a quarter of the memory.
    """
    return 64 if device.type == "cpu" else 256


def with_clean_statistics(
    backbone: Backbone, pool: Pool, indices: Tensor, *, batch_size: int = 128, autocast: Autocast = nullcontext
) -> Backbone:
    """Return a copy in eval mode with BatchNorm statistics of a sample of the undamaged images `indices` (n,).

    Pretraining estimates them on damaged images, which would shift the frozen features of clean ones. A backbone
    without BatchNorm is only copied, and so is one for a single image, whose statistics say nothing.
    """
    clean = copy_for_one(backbone)
    batches = [b for b in spread_evenly(indices, CLEAN_IMAGES).split(batch_size) if len(b) > 1]
    if batches and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in clean.modules()):
        device = next(clean.parameters()).device
        clean.train()
        with torch.no_grad(), autocast():
            update_bn((pool.gather(batch).to(device) for batch in batches), clean)
    return clean.eval()


def extract_features(
    backbone: Backbone,
    pool: Pool,
    indices: Tensor,
    *,
    batch_size: int | None = None,
    autocast: Autocast = nullcontext,
    crops: int = 1,
) -> Tensor:
    """(n, D) float32 on the CPU: the last map averaged over positions, for the pool's images `indices` (n,).

    With `crops` above 1 it is the mean over so many crops (`crops_of`).
    """
    device = next(backbone.parameters()).device
    found = []
    for batch in indices.split(batch_size or inference_batch_size(device)):
        with torch.no_grad(), autocast():
            found.append(mean_embedding(backbone, pool.gather(batch).to(device), crops).cpu())
    return torch.cat(found) if found else torch.zeros(0, backbone.num_features)


def mean_embedding(backbone: Backbone, images: Tensor, crops: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, D) float32: the backbone's embedding, averaged over `crops` crops of each image."""
    return torch.stack([backbone.embed(crop).float() for crop in crops_of(images, crops)]).mean(0)


def extract_maps(
    backbone: Backbone,
    pool: Pool,
    indices: Tensor,
    *,
    poolings: Sequence[str] = POOLINGS,
    batch_size: int | None = None,
    autocast: Autocast = nullcontext,
    crops: int = 1,
    report: Report = lambda share: None,
) -> dict[tuple[int, str], Tensor]:
    """Return the features of every map under every pooling, in one pass over the pool's images `indices` (n,).

    (layer, pooling) -> (n, D) float32 on the CPU; layers count from 0, shallow to deep, as in `Backbone.forward`. With
    `crops` above 1 they are means over so many crops (`crops_of`). `report` receives the share of the images done.
    """
    device = next(backbone.parameters()).device
    found: dict[tuple[int, str], list[Tensor]] = {}
    for batch in reported(indices.split(batch_size or inference_batch_size(device)), report):
        sums: dict[tuple[int, str], Tensor] = {}
        for crop in crops_of(pool.gather(batch).to(device), crops):
            with torch.no_grad(), autocast():
                maps = backbone(crop)
            for layer, features in enumerate(maps):
                for pooling in poolings:
                    own = pool_map(features.float(), pooling)
                    sums[layer, pooling] = sums[layer, pooling] + own if (layer, pooling) in sums else own
        for key, total in sums.items():
            found.setdefault(key, []).append((total / crops).cpu())
    return {key: torch.cat(parts) for key, parts in found.items()}


def pool_map(features: Tensor, pooling: str) -> Tensor:
    """(B, D, h, w) -> (B, D): `mean` or `max` over positions; raises `UserError` for another pooling."""
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    return features.mean(dim=(2, 3)) if pooling == "mean" else features.amax(dim=(2, 3))


def pixel_features(pool: Pool, indices: Tensor, *, side: int = PIXEL_SIDE, batch_size: int = 1024) -> Tensor:
    """(n, C * h * w) float32: the images themselves, reduced by averaging to at most `side` pixels per side."""
    size = (min(side, pool.shape[1]), min(side, pool.shape[2]))
    batches = (pool.gather(batch) for batch in indices.split(batch_size))
    return torch.cat([F.adaptive_avg_pool2d(batch, size).flatten(1) for batch in batches])


def spread_evenly(indices: Tensor, count: int) -> Tensor:
    """Return at most `count` of the indices (n,), at even steps."""
    if len(indices) <= count:
        return indices
    return indices[torch.linspace(0, len(indices) - 1, count).long()]

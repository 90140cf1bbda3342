"""Frozen features of a pool's images, from a backbone whose normalisation has seen clean images."""
# n images, D feature width

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from vision_mtl.data.pool import Pool
from vision_mtl.models.backbone import Backbone

CLEAN_IMAGES = (
    512  # images that BatchNorm statistics are re-estimated on: a channel's mean is then within 5 % of its std
)
Autocast = Callable[[], AbstractContextManager[object]]


def with_clean_statistics(
    backbone: Backbone, pool: Pool, indices: Tensor, *, batch_size: int = 128, autocast: Autocast = nullcontext
) -> Backbone:
    """A copy in eval mode whose BatchNorm statistics come from undamaged training images `indices` (a sample of them).

    In pretraining they come from damaged images; frozen features of clean ones would be shifted. Returns an equal copy
    where there is no BatchNorm.
    """
    clean = copy.deepcopy(backbone)
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in clean.modules()):
        device = next(clean.parameters()).device
        batches = [b for b in spread_evenly(indices, CLEAN_IMAGES).split(batch_size) if len(b) > 1]
        clean.train()
        with torch.no_grad(), autocast():
            update_bn((pool.gather(batch).to(device) for batch in batches), clean)
    return clean.eval()


def extract_features(
    backbone: Backbone, pool: Pool, indices: Tensor, *, batch_size: int = 256, autocast: Autocast = nullcontext
) -> Tensor:
    """(n, D) float32 on the CPU: the last map averaged over positions, for each of the pool's images `indices`."""
    device = next(backbone.parameters()).device
    with torch.no_grad(), autocast():
        found = [backbone.embed(pool.gather(batch).to(device)).float().cpu() for batch in indices.split(batch_size)]
    return torch.cat(found) if found else torch.zeros(0, backbone.num_features)


def spread_evenly(indices: Tensor, count: int) -> Tensor:
    """At most `count` of the indices, at even steps: the same ones every time."""
    if len(indices) <= count:
        return indices
    return indices[torch.linspace(0, len(indices) - 1, count).long()]

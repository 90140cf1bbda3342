"""Fit the mean and the standard deviation of each band on training images, where no published ones apply."""
# n images, C channels, B images of a batch

from __future__ import annotations

import torch
from torch import Tensor

from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.models.backbone import Backbone

MAX_IMAGES = 1000  # evenly spaced: means of bands settle long before
BATCH = 64
SMALLEST_STD = 1 / 255  # one grey level: a constant band is not divided by 0


def fit_statistics(backbone: Backbone, pool: Pool, indices: Tensor) -> None:
    """Set the backbone's mean and standard deviation of each band from the training images `indices` (n,).

    A backbone with published statistics, or with fitted ones, keeps them.
    """
    if backbone.has_statistics or len(indices) == 0:
        return
    chosen = spread_evenly(indices, MAX_IMAGES)
    total, squares = torch.zeros(backbone.in_chans).double(), torch.zeros(backbone.in_chans).double()
    for batch in chosen.split(BATCH):
        images = pool.gather(batch).double()
        total += images.mean((2, 3)).sum(0)
        squares += images.square().mean((2, 3)).sum(0)
    mean = total / len(chosen)
    std = (squares / len(chosen) - mean.square()).clamp(min=0).sqrt().clamp(min=SMALLEST_STD)
    backbone.set_statistics(mean.float(), std.float())

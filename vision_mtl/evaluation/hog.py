"""Histograms of oriented gradients of a pool's images: features that nothing was trained for.

Dalal and Triggs, "Histograms of oriented gradients for human detection", 2005,
https://doi.org/10.1109/CVPR.2005.177, by scikit-image. Differs from the paper: images are first resized to a square.
"""
# n images, C channels, H W pixels

from __future__ import annotations

import numpy as np
import torch
from skimage.feature import hog
from torch import Tensor
from torch.nn import functional as F

from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import Report, reported

SIDE = 64  # pixels: 8 x 8 cells of 8 pixels, 9 orientations, blocks of 2 x 2 cells give 1764 numbers


def hog_features(pool: Pool, indices: Tensor, *, batch_size: int = 256, report: Report = lambda share: None) -> Tensor:
    """(n, 1764) float32: the histograms of the pool's images `indices` (n,), resized to 64 x 64 pixels.

    At every pixel the channel with the largest gradient counts. `report` receives the share of the images done.
    """
    found = []
    for batch in reported(indices.split(batch_size), report):
        images = F.interpolate(pool.gather(batch), (SIDE, SIDE), mode="bilinear", antialias=True)  # (B, C, H, W)
        found += [hog(image, cells_per_block=(2, 2), channel_axis=0) for image in images.numpy()]
    return torch.from_numpy(np.array(found, np.float32))

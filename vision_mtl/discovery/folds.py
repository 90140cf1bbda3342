"""Two folds of the images for cross-fitting: a network fitted to one is scored on the other."""
# n images, S sources

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.rules import FoldImages
from vision_mtl.evaluation.features import spread_evenly

FOLDS = ("A", "B")
FITTED_BYTES = 120e6  # of images for fitting linear rules: 2,441 colour images of 64 pixels
FEWEST_FITTED, FEWEST_OF_SOURCE = 300, 40  # images, whatever their size
CHOOSING = 4  # every fourth cluster of those is kept to choose the strength of the regularisation
BATCH = 1024


def split_folds(pool: Pool, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split the pool's images `indices` (n,) into two folds of whole clusters, with each source halved if possible.

    For each source, clusters are visited in an order that depends on their images' names and `seed`, and each joins the
    fold with fewer images of the source. Raises `UserError` if all images are one cluster.
    """
    rows = indices.numpy()
    clusters = np.unique(pool.cluster[rows], return_inverse=True)[1]
    if len(indices) == 0 or clusters.max() == 0:
        raise UserError(
            f"discover needs images of two clusters or more, to fit on some and score others; found {len(indices)} "
            "images of one. Give more images, or groups of them, in data.unlabelled or tasks."
        )
    order = _shuffled_clusters(pool.draw_names(indices), clusters, seed)
    fold = np.full(clusters.max() + 1, -1)
    for column in range(len(pool.sources)):
        counts = np.bincount(clusters[pool.member[rows, column]], minlength=len(fold))
        sizes = [int(counts[fold == number].sum()) for number in (0, 1)]
        for cluster in order:
            if counts[cluster] and fold[cluster] < 0:
                fold[cluster] = int(sizes[1] < sizes[0])
                sizes[fold[cluster]] += int(counts[cluster])
    fold_of_image = torch.from_numpy(fold[clusters])
    return indices[fold_of_image == 0], indices[fold_of_image == 1]


def sample_images(pool: Pool, indices: Tensor, count: int) -> Tensor:
    """(m,) of `indices`, in order: at most `count` of each source, at even steps."""
    member = torch.from_numpy(pool.member)[indices]  # (n, S)
    chosen = [spread_evenly(indices[member[:, column]], count) for column in range(len(pool.sources))]
    return torch.cat(chosen).unique()


def fold_images(pool: Pool, indices: Tensor, device: torch.device) -> FoldImages:
    """Return the images for fitting rules: a sample of the fold's images `indices` (n,), and each source's mean image.

    A source without an image in the fold gets the mean of all images. Rules stay on the CPU instead of an Apple GPU,
    which lacks double precision and eigenvectors.
    """
    device = torch.device("cpu") if device.type == "mps" else device
    count = max(FEWEST_FITTED, int(FITTED_BYTES / (4 * math.prod(pool.shape))))
    chosen = sample_images(pool, indices, max(FEWEST_OF_SOURCE, count // len(pool.sources)))
    clusters = np.unique(pool.cluster[chosen.numpy()], return_inverse=True)[1]
    sums = torch.zeros(len(pool.sources), *pool.shape, dtype=torch.float64)
    for batch in indices.split(BATCH):
        sums.index_add_(0, torch.from_numpy(first_source(pool, batch)), pool.gather(batch).double())
    counts = torch.from_numpy(first_source(pool, indices)).bincount(minlength=len(sums)).view(-1, 1, 1, 1)
    mean = torch.where(counts > 0, sums / counts.clamp(min=1), sums.sum(0) / len(indices)).float()
    return FoldImages(
        pool.gather(chosen).to(device),
        torch.from_numpy(first_source(pool, chosen)).to(device),
        torch.from_numpy(clusters % CHOOSING == CHOOSING - 1).to(device),
        mean.to(device),
    )


def first_source(pool: Pool, indices: np.ndarray | Tensor) -> np.ndarray:
    """(n,) int64: the number of the first source that contains each image."""
    return pool.member[np.asarray(indices)].argmax(1)


def _shuffled_clusters(names: list[str], clusters: np.ndarray, seed: int) -> list[int]:
    """The clusters, sorted by a hash of the seed and the smallest name among their images."""
    smallest: dict[int, str] = {}
    for name, cluster in zip(names, clusters.tolist(), strict=True):
        smallest[cluster] = min(smallest.get(cluster, name), name)
    key = str(seed).encode()
    return sorted(smallest, key=lambda c: hashlib.blake2b(smallest[c].encode(), key=key, digest_size=8).digest())

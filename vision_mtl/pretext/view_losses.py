"""Losses that compare the embeddings of views of several images; each is relative to its chance value.

`nt_xent` tells the views of an image from those of all others (SimCLR: Chen et al., 2020,
https://arxiv.org/abs/2002.05709, eq. 1). The other two have no negatives; they keep the embeddings of different images
apart by statistics over the images, one view of each at a time:

- `vicreg`: variance, invariance and covariance (Bardes et al., 2021, https://arxiv.org/abs/2105.04906, eq. 1 to 6);
- `coding_rate`: the total coding rate, and the cosine to the mean of an image's views (EMP-SSL: Tong et al., 2023,
  https://arxiv.org/abs/2304.03977, eq. 3 to 5). Both weights are the papers' own.

The chance value is the loss of an embedding that is the same for all views: 1 means that nothing is distinguished. The
best value is 0 for all three, or nearly so. A coding rate grows with the number of images; here it counts as the
distance from the largest one that so many unit vectors can have, divided by the distance of equal ones.

Differs from the papers: `nt_xent` has only views of other images as negatives; as in the authors' code, `vicreg`
averages squared distances over the width and variances over the views, and `coding_rate` sets eps^2, not eps, to 0.2;
`vicreg` with more than two views is the mean over all pairs.
"""
# n views in the batch, V views of an image, K embedding width

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

EXCLUDED = -1e9  # similarity of excluded pairs: its exponential is 0; finite, so that gradients exist without negatives
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # of VICReg, sec. 4.2
VARIANCE_FLOOR = 1e-4  # of VICReg, eq. 1
TOWARDS_MEAN, SQUARED_ERROR = 200.0, 0.2  # of EMP-SSL, sec. 3.1: lambda and eps^2


def nt_xent(embeddings: Tensor, image: Tensor, num_views: int, temperature: float) -> Tensor:
    """(n, K) -> (n,): NT-Xent divided by log(n - V + 1), its value for equal embeddings.

    `image` (n,) is equal for views of one image. 0 for a view without another view of its image.
    """
    unit = F.normalize(embeddings, dim=1)
    similarity = unit @ unit.T / temperature
    same_image = image[:, None] == image
    negatives = similarity.masked_fill(same_image, EXCLUDED).logsumexp(1, keepdim=True)
    positives = same_image ^ torch.eye(len(image), dtype=torch.bool, device=image.device)
    # of each positive pair: -log(e^s / (e^s + sum over negatives))
    pair_losses = F.softplus(negatives - similarity).masked_fill(~positives, 0.0).sum(1)
    return pair_losses / positives.sum(1).clamp(min=1) / math.log(len(image) - num_views + 1)


def vicreg(embeddings: Tensor, image: Tensor, view: Tensor, num_views: int) -> Tensor:
    """(n, K) -> (n,): VICReg divided by its value for equal embeddings.

    `view` (n,) in [0, V) numbers the views of an image. A view has its own distance from the image's others, and the
    variance and covariance that all images have at its number. 0 where there is one image only.
    """
    members, count = _views_by_number(view, num_views)  # (V, n), (V, 1)
    several = (count - 1).clamp(min=1)
    mean = members @ embeddings / count.clamp(min=1)  # (V, K)
    centred = embeddings - mean[view]
    variance = members @ centred.square() / several  # (V, K)
    spread = F.relu(1 - (variance + VARIANCE_FLOOR).sqrt()).mean(1)  # (V,)
    covariance = _products(centred, members) / several[:, :, None]  # (V, K, K)
    width = embeddings.shape[1]
    off_diagonal = (covariance.square().sum((1, 2)) - variance.square().sum(1)) / width  # (V,)
    of_images = (VARIANCE * spread + 2 * COVARIANCE * off_diagonal)[view]  # 2: the paper adds both views' covariances
    loss = INVARIANCE * _squared_distances(embeddings, image) + of_images
    chance = VARIANCE * (1 - math.sqrt(VARIANCE_FLOOR))
    return torch.where(count[view, 0] > 1, loss / chance, 0.0)


def coding_rate(embeddings: Tensor, image: Tensor, view: Tensor, num_views: int) -> Tensor:
    """(n, K) -> (n,): EMP-SSL's loss minus its least value, divided by the difference for equal embeddings.

    `view` (n,) in [0, V) numbers the views of an image. A view has its own cosine to the mean of its image's views, and
    the coding rate that all images have at its number. 0 where there is one image only.
    """
    unit, width = F.normalize(embeddings, dim=1), embeddings.shape[1]
    members, count = _views_by_number(view, num_views)  # (V, n), (V, 1)
    number = count[:, 0].clamp(min=2)  # (V,) images; with one, the loss below is not used
    scale = width / (number * SQUARED_ERROR)
    matrix = torch.eye(width, device=unit.device) + scale[:, None, None] * _products(unit, members)
    # log det A = 2 sum log diag L; A is positive definite also for fewer images than the width
    factor = torch.linalg.cholesky_ex(matrix).L
    rate = factor.diagonal(dim1=1, dim2=2).log().sum(1)  # (V,)
    rank = number.clamp(max=width)
    largest = 0.5 * rank * torch.log1p(width / (rank * SQUARED_ERROR))
    smallest = 0.5 * math.log1p(width / SQUARED_ERROR)  # of equal vectors
    apart = 1 - F.cosine_similarity(unit, _image_means(unit, image), dim=1)
    loss = ((largest - rate)[view] + TOWARDS_MEAN * apart) / (largest - smallest)[view]
    return torch.where(count[view, 0] > 1, loss, 0.0)


def _views_by_number(view: Tensor, num_views: int) -> tuple[Tensor, Tensor]:
    """(V, n) float32, 1 where a view has the row's number, and the number of views of each, (V, 1)."""
    members = (view == torch.arange(num_views, device=view.device)[:, None]).float()
    return members, members.sum(1, keepdim=True)


def _products(embeddings: Tensor, members: Tensor) -> Tensor:
    """(V, K, K): the sum of outer products of the embeddings (n, K) of each number of view."""
    return (embeddings.T * members[:, None]) @ embeddings


def _image_means(embeddings: Tensor, image: Tensor) -> Tensor:
    """(n, K): the mean over all views of each row's image."""
    same_image = (image[:, None] == image).float()
    return same_image @ embeddings / same_image.sum(1, keepdim=True)


def _squared_distances(embeddings: Tensor, image: Tensor) -> Tensor:
    """(n,): the mean squared distance per number of a view from the image's other views; 0 without another."""
    same_image = (image[:, None] == image).float()
    count = same_image.sum(1)
    mean = same_image @ embeddings / count[:, None]
    own = (embeddings - mean).square().mean(1)  # distances via the mean: differences of large squares cancel
    total = count * own + same_image @ own
    return total / (count - 1).clamp(min=1)

"""k nearest neighbours by cosine similarity, each voting with weight exp(similarity / temperature).

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", 2018,
https://arxiv.org/abs/1805.01978, sec. 3.4. Differs from the paper: features are centred on the training mean first,
because untrained and unnormalised backbones put all images into one narrow cone.
"""
# n training and m validation images, D feature width, K classes

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # from the paper


def knn_predict(train_x: Tensor, train_y: Tensor, val_x: Tensor, *, k: int) -> Tensor:
    """Features (n, D) with classes (n,) int64, and (m, D) -> (m,) predicted classes; `ValueError` for a bad k."""
    if not 1 <= k <= len(train_x):
        raise ValueError(f"k must be 1 to the {len(train_x)} training images; found {k}")
    mean = train_x.mean(0)
    similarity = F.normalize(val_x - mean, dim=1) @ F.normalize(train_x - mean, dim=1).T  # (m, n)
    nearest, index = similarity.topk(k, dim=1)
    votes = torch.zeros(len(val_x), int(train_y.max()) + 1, dtype=nearest.dtype, device=nearest.device)
    return votes.scatter_add(1, train_y[index], torch.exp((nearest - 1) / TEMPERATURE)).argmax(1)


def knn_accuracy(train_x: Tensor, train_y: Tensor, val_x: Tensor, val_y: Tensor, *, k: int) -> float:
    """Share of the m validation images whose class the neighbours name."""
    return float((knn_predict(train_x, train_y, val_x, k=k) == val_y).float().mean())

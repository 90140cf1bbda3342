"""k nearest neighbours by cosine similarity, with votes weighted by exp(similarity / temperature).

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", 2018,
https://arxiv.org/abs/1805.01978, sec. 3.4. Differs from the paper: features are first centred on the training mean,
because untrained and unnormalised backbones map all images into a narrow cone; and a vote is any vector, so that the
same neighbours predict several labels or a number.
"""
# n training and m query images, D feature width, K classes, labels or values

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # from the paper
ROWS = 1024  # queries at a time: their similarities to 50,000 images take 200 MB


def knn_votes(train_x: Tensor, votes: Tensor, query_x: Tensor, *, k: int) -> Tensor:
    """(m, K): the weighted mean vote of the k nearest of features (n, D) with votes (n, K), for queries (m, D).

    One-hot votes give class probabilities. Raises `ValueError` for a k outside 1 to n.
    """
    similarity, index = nearest_neighbours(train_x, query_x, k=k)
    weight = torch.exp((similarity - 1) / TEMPERATURE)  # (m, k)
    parts = zip(weight.split(ROWS), index.split(ROWS), strict=True)
    found = [torch.einsum("mk,mkc->mc", w, votes[i].to(w.dtype)) / w.sum(1, keepdim=True) for w, i in parts]
    return torch.cat(found)


def nearest_neighbours(train_x: Tensor, query_x: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Features (n, D) and (m, D) -> (m, k) cosine similarities, descending, and (m, k) int64 rows of `train_x`.

    Raises `ValueError` for a k outside 1 to n.
    """
    if not 1 <= k <= len(train_x):
        raise ValueError(f"k must be 1 to the {len(train_x)} training images; found {k}")
    mean = train_x.mean(0)
    train = F.normalize(train_x - mean, dim=1)
    found = [(F.normalize(rows - mean, dim=1) @ train.T).topk(k, dim=1) for rows in query_x.split(ROWS)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def knn_predict(train_x: Tensor, train_y: Tensor, val_x: Tensor, *, k: int) -> Tensor:
    """Features (n, D) with classes (n,) int64, and (m, D) -> (m,) predicted classes.

    Raises `ValueError` for a k outside 1 to n.
    """
    return knn_votes(train_x, F.one_hot(train_y).float(), val_x, k=k).argmax(1)


def knn_accuracy(train_x: Tensor, train_y: Tensor, val_x: Tensor, val_y: Tensor, *, k: int) -> float:
    """The accuracy of kNN on validation features (m, D) and classes (m,), from training ones (n, D) and (n,).

    Raises `ValueError` for a k outside 1 to n.
    """
    return float((knn_predict(train_x, train_y, val_x, k=k) == val_y).float().mean())

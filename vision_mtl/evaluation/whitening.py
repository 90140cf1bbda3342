"""PCA whitening: the first principal components of features, scaled to equal variance."""
# n features, D their width, K components

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# components of less variance than this share of the first one's are rounding of the features, which have 16 bits
SMALLEST_SHARE = 1e-6


@dataclass(frozen=True)
class Whitening:
    """Centres features and projects them onto `directions` (D, K); the last `K - rank` of these are zero."""

    mean: Tensor  # (D,)
    directions: Tensor  # (D, K)
    rank: int

    @classmethod
    def fit(cls, features: Tensor, width: int) -> Whitening:
        """Return the whitening to `width` components that gives the features (n, D) mean 0 and variance 1.

        Components beyond the rank of the features are zero: with few or constant features there are fewer.
        """
        rows = features.double()
        mean = rows.mean(0)
        centred = rows - mean
        variances, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))  # ascending
        variances, vectors = variances.flip(0), vectors.flip(1)
        floor = max(SMALLEST_SHARE * float(variances[0]), torch.finfo(torch.float32).tiny)
        rank = min(width, int((variances > floor).sum()), max(len(rows) - 1, 0))
        directions = rows.new_zeros(rows.shape[1], width)
        directions[:, :rank] = vectors[:, :rank] / variances[:rank].sqrt()
        return cls(mean.float(), directions.float(), rank)

    def __call__(self, features: Tensor) -> Tensor:
        """(n, D) or (n, D, h, w) -> (n, K) or (n, K, h, w), float32."""
        last = features.float().movedim(1, -1)
        return ((last - self.mean) @ self.directions).movedim(-1, 1)

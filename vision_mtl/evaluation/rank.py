"""How many directions a set of embeddings uses: 1 where all images look alike to the network (collapse).

RankMe: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by
their rank", 2023, https://arxiv.org/abs/2210.02885, eq. 1.
"""
# n images, D feature width

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-7  # added to each share, as in the paper, so that its logarithm exists
COLLAPSED = (
    1.2  # untrained networks have 12 and more (five families, photographs and digits); two classes that are told
)
# apart and nothing else have up to 2, so only what is below counts as a collapse


def effective_rank(embeddings: Tensor) -> float:
    """(n, D) -> the exponential of the entropy of the singular values' shares: 1 to min(n, D); NaN if not finite."""
    if not bool(embeddings.isfinite().all()):
        return float("nan")
    values = torch.linalg.svdvals(embeddings.double())
    shares = values / values.sum().clamp(min=1e-300) + SMALLEST
    return float((-(shares * shares.log()).sum()).exp())

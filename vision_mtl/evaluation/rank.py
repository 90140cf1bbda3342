"""The effective rank of embeddings: the number of directions that they use, 1 if all images look alike (collapse).

RankMe: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by
their rank", 2023, https://arxiv.org/abs/2210.02885, eq. 1.
"""
# n images, D feature width

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-7  # added to each share, as in the paper, so that its logarithm exists
# Ranks below this count as a collapse. Untrained networks have 12 or more (five families, photographs and digits);
# embeddings that separate two classes and nothing else have up to 2.
COLLAPSED = 1.2


def effective_rank(embeddings: Tensor) -> float:
    """(n, D) -> exponential of the entropy of the singular values' shares, 1 to min(n, D); NaN for non-finite input."""
    if not bool(embeddings.isfinite().all()):
        return float("nan")
    values = torch.linalg.svdvals(embeddings.double())
    shares = values / values.sum().clamp(min=1e-300) + SMALLEST
    return float((-(shares * shares.log()).sum()).exp())

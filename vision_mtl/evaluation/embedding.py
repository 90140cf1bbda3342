"""Projection of features to two dimensions, for pictures only; nothing is measured on it.

van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html.
Initialised with the principal components, which preserves large distances (Kobak and Linderman, 2021,
https://doi.org/10.1038/s41587-020-00809-z).
"""
# n images, D feature width

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

PERPLEXITY = 30.0  # effective number of neighbours, from the paper's range of 5 to 50
COMPONENTS = 50  # principal components kept, as in the paper: less noise, and seconds instead of minutes
FEWEST = 8  # images; with fewer, a projection shows nothing


def embed(features: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """(n, D) -> (n, 2); None for fewer than `FEWEST` images or constant features."""
    if len(features) < FEWEST or not np.ptp(features, axis=0).any():
        return None
    components = min(COMPONENTS, *features.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features) if components > 1 else features
    start = "pca" if reduced.shape[1] > 1 else "random"
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)

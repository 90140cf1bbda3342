"""The bands of an image that pictures show as red, green and blue."""
# C bands

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DEFAULT_BANDS = (0, 1, 2)  # of an image with more than three bands; of two bands the first is shown as grey


def shown_bands(images: np.ndarray, bands: Sequence[int] | None = None) -> np.ndarray:
    """Return images (..., C) as pictures (..., 1 or 3): the `bands`, counted from 0; None: the default."""
    channels = images.shape[-1]
    if bands is None:
        if channels in (1, 3):
            return images
        bands = DEFAULT_BANDS if channels > 3 else (0,)
    return np.ascontiguousarray(images[..., list(bands)])

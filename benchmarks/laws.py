"""Draws of a law in chunks, and their spread, for simulations of the statistics."""
# D draws, S seeds, n images

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vision_mtl.evaluation.crossed import Spread, spread

CHUNK = 500  # draws held at once


def law_of(random: np.random.Generator, law: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws of mean 0 and variance 1."""
    if law == "t3":
        return random.standard_t(3, shape) / np.sqrt(3)
    if law == "lognormal":
        return (np.exp(random.standard_normal(shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    return random.standard_normal(shape)


def chunks(draws: int, size: int) -> Iterator[int]:
    return (min(size, draws - start) for start in range(0, draws, size))


def spread_of(values: np.ndarray) -> Spread:
    return spread(values, np.arange(values.shape[-1]))

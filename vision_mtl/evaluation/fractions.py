"""Label fractions: stratified, nested shares of a task's training labels.

The choice of images depends only on their names and the seed, not on their order or number, so that two runs with the
same images under other indices use the same labels.
"""
# n training images of one task, m of them labelled

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision_mtl.core.errors import UserError

ROUNDED_UP = 2.0  # ratio of real to requested fraction above which a run warns: the name "1 %" would mislead


@dataclass(frozen=True)
class LabelFraction:
    """The chosen `rows` (m,) int64, ascending, among the n training images; `fraction` is m / n."""

    requested: float
    fraction: float
    num_labelled: int
    rows: np.ndarray
    warning: str | None = None


def label_fraction(names: Sequence[str], strata: np.ndarray, fraction: float, seed: int) -> LabelFraction:
    """Draw the share `fraction` of n images by their names, with at least one image of each stratum (n,).

    The number of images is rounded within each stratum; distributing a remainder over strata would break the nesting.
    Raises `UserError` for a fraction outside (0, 1], `ValueError` without an image.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"a label fraction must lie in (0, 1]; found {fraction:g}.")
    if len(strata) == 0:
        raise ValueError("no image to take a fraction of")
    draws = np.array([_draw(name, seed) for name in names], np.uint64)
    rows = []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        count = max(1, int(np.floor(fraction * len(members) + 0.5)))
        rows.append(members[np.argsort(draws[members], kind="stable")[:count]])
    chosen = np.sort(np.concatenate(rows))
    real = len(chosen) / len(strata)
    warning = None
    if real > ROUNDED_UP * fraction:
        warning = (
            f"{fraction:g} of {len(strata)} labels is {fraction * len(strata):.1f}; one image of each of "
            f"{len(rows)} classes makes it {len(chosen)}, a fraction of {real:.3g}."
        )
    return LabelFraction(fraction, real, len(chosen), chosen, warning)


def _draw(name: str, seed: int) -> int:
    digest = hashlib.blake2b(name.encode(), key=f"labels {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")

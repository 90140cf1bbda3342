"""Label fractions: a share of a task's training labels, stratified, and each one part of every larger one.

Which images are taken depends on what they are called and on the seed, never on their order or number, so two runs that
see the same images under other indices learn from the same labels.
"""
# n training images of one task, m of them labelled

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision_mtl.core.errors import UserError

ROUNDED_UP = 2.0  # times the asked share beyond which a run warns: then "1 %" is no longer what was measured


@dataclass(frozen=True)
class LabelFraction:
    """`rows` (m,) int64, ascending, are positions among the n training images; `fraction` is m / n."""

    requested: float
    fraction: float
    num_labelled: int
    rows: np.ndarray
    warning: str | None = None


def label_fraction(names: Sequence[str], strata: np.ndarray, fraction: float, seed: int) -> LabelFraction:
    """The share `fraction` of n images, drawn by their names, rounded in each stratum (n,), at least one of each.

    Each stratum is rounded on its own: dividing the rest among strata would not be nested. Raises `UserError` for a
    fraction outside (0, 1], `ValueError` for no image.
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

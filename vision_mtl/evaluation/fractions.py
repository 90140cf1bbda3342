"""Label fractions: stratified, nested shares of a task's training and validation labels.

The choice of images depends only on their names and the seed, not on their order or number, so that two runs with the
same images under other indices use the same labels.
"""
# n images of one task and split, m of them labelled

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_mtl.core.errors import UserError

ROUNDED_UP = 2.0  # ratio of real to requested fraction above which a run warns: the name "1 %" would mislead


@dataclass(frozen=True)
class LabelFraction:
    """The chosen `rows` (m,) int64, ascending, among the n images of a split; `fraction` is m / n."""

    requested: float
    fraction: float
    num_labelled: int
    rows: np.ndarray
    warning: str | None = None


@dataclass(frozen=True)
class LabelBudget:
    """The labels that a run may use at one fraction: those to train on, and those to choose by."""

    train: LabelFraction
    validation: LabelFraction

    def record(self) -> dict[str, Any]:
        """Return the numbers of labels, as `result.json` has them."""
        return {
            "requested": self.train.requested,
            "fraction": self.train.fraction,
            "num_labelled": self.train.num_labelled,
            "num_validation": self.validation.num_labelled,
        }

    def warnings(self) -> list[str]:
        """Return a warning for each split whose fraction was rounded up a lot."""
        found = [self.train.warning, self.validation.warning and f"validation: {self.validation.warning}"]
        return [text for text in found if text]


def label_budget(
    train: tuple[Sequence[str], np.ndarray],
    validation: tuple[Sequence[str], np.ndarray],
    fraction: float,
    seed: int,
    *,
    all_validation: bool = False,
) -> LabelBudget:
    """Draw `fraction` of both splits, each given by its names and strata; with `all_validation` of `train` only.

    There may be no validation image. Raises as `label_fraction` does.
    """
    own = label_fraction(*train, fraction, seed)
    if len(validation[0]) == 0:
        return LabelBudget(own, LabelFraction(fraction, 1.0, 0, np.zeros(0, np.int64)))
    return LabelBudget(own, label_fraction(*validation, 1.0 if all_validation else fraction, seed))


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

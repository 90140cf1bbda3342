"""Learning progress -> how often each damage is drawn: a bandit whose arms are damages.

What is being learned fastest is drawn most (Graves et al., "Automated curriculum learning for neural networks", 2017,
https://arxiv.org/abs/1704.03003, whose prediction gain on fresh samples is the progress here). Progress is the smoothed
fall of a validation loss, as in Matiisen et al., "Teacher-student curriculum learning", 2017,
https://arxiv.org/abs/1707.00183 (their algorithm "online").

Differs from both:

- every arm is measured at every update, on the same damaged images, so there are no missing rewards to estimate:
  neither Exp3.S with its importance weights (Graves) nor Boltzmann sampling (Matiisen). Weights are proportional to
  progress, which has no temperature and needs no rescaling of rewards; a floor takes the place of their exploration;
- a loss is in units of the untrained prediction's, so that damages of any size can be compared;
- the progress that counts is the expected improvement E[max(fall, 0)] (Jones et al., "Efficient global optimization",
  1998, https://doi.org/10.1023/A:1008306431147, sec. 4.1) given the fall and its standard error over clusters of
  images. The absolute slope of both papers would reward a loss that only wobbles, as that of pure noise does;
- the fall of an arm that was drawn more often than the mixture has it counts for each of its draws. That of one drawn
  less often counts as it is: to divide by a small share would blow up its noise, and what it learned from others.
"""
# A arms, n validation images, G clusters

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from vision_mtl.training.repair import SMALLEST_CHANCE

PACE = 0.5  # of the way that the weights move at each update: one lucky measurement does not turn them over
IN_FILES = {"chance_loss": "chance"}  # a field -> its key in checkpoints
KEEP = 0.8  # of the falls so far at each update: progress is that of about the last five updates


@dataclass(frozen=True, eq=False)
class Bandit:
    """Where A arms stand. `weights` (A,) say how often each is drawn relative to the mixture; weighed by `base`, their
    mean is 1 and none is below `floor`.

    `base` (A,) are the arms' shares of the mixture, of sum 1. `chance_loss`, `loss`, `fall` (A, n) are the untrained
    losses, the last ones measured, and the discounted sum of their falls, 0 where an image does not `suit` the arm.
    `exposure` (A,) is the discounted sum of past weights and `num_updates` that of ones.
    """

    floor: float
    base: np.ndarray
    clusters: np.ndarray  # (n,) of the images
    suits: np.ndarray  # (A, n) bool
    chance_loss: np.ndarray
    loss: np.ndarray
    fall: np.ndarray
    exposure: np.ndarray
    weights: np.ndarray
    num_updates: float = 0.0

    @staticmethod
    def start(
        floor: float, base: np.ndarray, clusters: np.ndarray, chance_loss: np.ndarray, loss: np.ndarray
    ) -> Bandit:
        """Return the mixture as it is, before the first update; `chance_loss` and `loss` (A, n), NaN where unsuited."""
        groups, zeros = np.unique(clusters, return_inverse=True)[1], np.zeros(len(base))
        return Bandit(
            floor,
            base,
            groups,
            suits=~np.isnan(chance_loss),
            chance_loss=np.nan_to_num(chance_loss),
            loss=np.nan_to_num(loss),
            fall=np.zeros_like(loss),
            exposure=zeros,
            weights=np.ones_like(zeros),
        )

    @property
    def skill(self) -> np.ndarray:
        """(A,) 1 - loss / untrained loss, 0 where no image suits the arm."""
        return (self.chance_loss - self.loss).sum(1) / self._unit

    @property
    def shares(self) -> np.ndarray:
        """(A,) of sum 1: the share of images that each arm is drawn for."""
        return self.base * self.weights

    def update(self, loss: np.ndarray) -> Bandit:
        """After training with these weights gave `loss` (A, n): the progress it shows, and the weights that follow."""
        loss = np.nan_to_num(loss)
        seen = replace(
            self,
            loss=loss,
            fall=KEEP * self.fall + self.loss - loss,
            exposure=KEEP * self.exposure + self.weights,
            num_updates=KEEP * self.num_updates + 1,
        )
        fall, error = seen.progress()
        counted = np.minimum(fall, seen.skill)  # to make good what training itself has harmed is no progress
        aim = seen._aim(expected_improvement(counted, error))
        return replace(seen, weights=(1 - PACE) * self.weights + PACE * aim)

    def progress(self) -> tuple[np.ndarray, np.ndarray]:
        """(A,) the recent fall in units of the untrained loss, and its standard error over clusters of images.

        The error is 0 where one cluster alone suits the arm.
        """
        belongs = np.eye(self.clusters.max() + 1)[self.clusters]  # (n, G)
        totals, there = self.fall @ belongs, self.suits @ belongs > 0  # (A, G)
        count = there.sum(1)
        mean = totals.sum(1) / np.maximum(count, 1)
        squares = np.where(there, (totals - mean[:, None]) ** 2, 0).sum(1)
        error = np.sqrt(squares * count / np.maximum(count - 1, 1))
        return totals.sum(1) / self._unit, error / self._unit

    def to_state(self) -> dict[str, Any]:
        """Plain lists and numbers, for a checkpoint."""
        values = {IN_FILES.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Bandit:
        """What `to_state` gave."""
        names = {in_file: name for name, in_file in IN_FILES.items()}
        values: dict[str, Any] = {name: np.array(v) if isinstance(v, list) else v for name, v in state.items()}
        return Bandit(**{names.get(name, name): value for name, value in values.items()})

    @property
    def _unit(self) -> np.ndarray:
        """(A,) the untrained loss over all images; what is too small to be worth learning is not blown up."""
        return np.maximum(self.chance_loss.sum(1), SMALLEST_CHANCE * np.maximum(self.suits.sum(1), 1))

    def _aim(self, improvement: np.ndarray) -> np.ndarray:
        """(A,) proportional to improvement a draw, above the floor; all 1 where nothing improves.

        An arm that no image suits cannot be judged and keeps its share of the mixture.
        """
        judged = self.suits.any(1)
        worth = improvement / np.maximum(self.exposure / self.num_updates, 1)
        mean = (worth * self.base)[judged].sum() / max(self.base[judged].sum(), 1e-12)
        if mean <= 0:
            return np.ones_like(self.weights)
        return np.where(judged, self.floor + (1 - self.floor) * worth / mean, 1.0)


def expected_improvement(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """E[max(x, 0)] of x normal with `mean` and standard `error`, elementwise; max(mean, 0) where the error is 0."""
    safe = np.where(error > 0, error, 1.0)
    z = mean / safe
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.where(error > 0, np.maximum(mean * ndtr(z) + safe * density, 0), np.maximum(mean, 0))

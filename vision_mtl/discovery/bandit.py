"""A bandit whose arms are damages: it draws a damage more often the faster it is being learned.

The scheme follows Graves et al., "Automated curriculum learning for neural networks", 2017,
https://arxiv.org/abs/1704.03003; progress corresponds to their prediction gain on fresh samples. Progress is the
smoothed decrease of a validation loss, as in Matiisen et al., "Teacher-student curriculum learning", 2017,
https://arxiv.org/abs/1707.00183 (their algorithm "online").

Differs from both:

- every arm is measured at every update, on the same damaged images, so no reward is missing and neither Exp3.S with
  importance weights (Graves) nor Boltzmann sampling (Matiisen) is needed. Weights are proportional to progress, without
  temperature or rescaled rewards; a floor replaces exploration;
- a loss is divided by its chance loss, so that all damages are comparable;
- progress is the expected improvement E[max(fall, 0)] (Jones et al., "Efficient global optimization", 1998,
  https://doi.org/10.1023/A:1008306431147, sec. 4.1) given the fall and its standard error over clusters of images. The
  absolute slope of both papers would reward a loss that merely fluctuates, as that of pure noise does;
- the fall of an arm that was drawn more often than in the mixture is divided by its draws. That of an arm drawn less
  often is not: dividing by a small share would amplify its noise and the gain that it owes to other arms.
"""
# A arms, n validation images, G clusters

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from vision_mtl.training.repair import SMALLEST_CHANCE

PACE = 0.5  # share of the way to their aim that weights move at each update: limits the effect of one measurement
IN_FILES = {"chance_loss": "chance"}  # field -> its key in checkpoints
KEEP = 0.8  # decay of earlier falls at each update: progress covers about the last five updates


@dataclass(frozen=True, eq=False)
class Bandit:
    """The state of A arms: `weights` (A,) scale each arm's probability in the mixture, and none is below `floor`.

    `base` (A,) are the arms' shares of the mixture, of sum 1; weighted by them, the mean of `weights` is 1.
    `chance_loss`, `loss` and `fall` (A, n) are the chance losses, the last measured losses and the discounted sum of
    their falls, 0 where an image does not suit the arm (`suits`). `exposure` (A,) is the discounted sum of past
    weights, `num_updates` the discounted number of updates.
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
        """Return the state before the first update; `chance_loss` and `loss` (A, n) are NaN where unsuited."""
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
        """(A,) 1 - loss / chance loss, 0 where no image suits the arm."""
        return (self.chance_loss - self.loss).sum(1) / self._unit

    @property
    def shares(self) -> np.ndarray:
        """(A,) of sum 1: the probability of each arm."""
        return self.base * self.weights

    def update(self, loss: np.ndarray) -> Bandit:
        """Return the state after training with the present weights reached `loss` (A, n)."""
        loss = np.nan_to_num(loss)
        measured = replace(
            self,
            loss=loss,
            fall=KEEP * self.fall + self.loss - loss,
            exposure=KEEP * self.exposure + self.weights,
            num_updates=KEEP * self.num_updates + 1,
        )
        fall, error = measured.progress()
        counted = np.minimum(fall, measured.skill)  # recovering from a loss above chance is no progress
        aim = measured._aim(expected_improvement(counted, error))
        return replace(measured, weights=(1 - PACE) * self.weights + PACE * aim)

    def progress(self) -> tuple[np.ndarray, np.ndarray]:
        """(A,) recent fall in units of the chance loss, and (A,) its standard error over clusters of images.

        The error is 0 where only one cluster suits the arm.
        """
        membership = np.eye(self.clusters.max() + 1)[self.clusters]  # (n, G)
        totals, suited = self.fall @ membership, self.suits @ membership > 0  # (A, G)
        count = suited.sum(1)
        mean = totals.sum(1) / np.maximum(count, 1)
        squares = np.where(suited, (totals - mean[:, None]) ** 2, 0).sum(1)
        error = np.sqrt(squares * count / np.maximum(count - 1, 1))
        return totals.sum(1) / self._unit, error / self._unit

    def to_state(self) -> dict[str, Any]:
        """The state as plain lists and numbers, for a checkpoint."""
        values = {IN_FILES.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Bandit:
        """Return the bandit from the value of `to_state`."""
        names = {in_file: name for name, in_file in IN_FILES.items()}
        values: dict[str, Any] = {name: np.array(v) if isinstance(v, list) else v for name, v in state.items()}
        return Bandit(**{names.get(name, name): value for name, value in values.items()})

    @property
    def _unit(self) -> np.ndarray:
        """(A,) the total chance loss, with a lower bound so that negligible losses are not amplified."""
        return np.maximum(self.chance_loss.sum(1), SMALLEST_CHANCE * np.maximum(self.suits.sum(1), 1))

    def _aim(self, improvement: np.ndarray) -> np.ndarray:
        """(A,) target weights: the floor plus a term proportional to improvement per draw; all 1 without improvement.

        An arm that no image suits is not measured and keeps its share of the mixture.
        """
        measured = self.suits.any(1)
        worth = improvement / np.maximum(self.exposure / self.num_updates, 1)
        mean = (worth * self.base)[measured].sum() / max(self.base[measured].sum(), 1e-12)
        if mean <= 0:
            return np.ones_like(self.weights)
        return np.where(measured, self.floor + (1 - self.floor) * worth / mean, 1.0)


def expected_improvement(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """E[max(x, 0)] for normal x with `mean` and standard deviation `error`, elementwise."""
    safe = np.where(error > 0, error, 1.0)
    z = mean / safe
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.where(error > 0, np.maximum(mean * ndtr(z) + safe * density, 0), np.maximum(mean, 0))

"""The linear probe: one linear layer on frozen features, fitted to its optimum.

Multinomial logistic regression for classes (Alain and Bengio, "Understanding intermediate layers using linear
classifier probes", 2016, https://arxiv.org/abs/1610.01644), one logistic regression per label for several labels, ridge
regression for numbers. It is solved by Newton's method instead of SGD, so there is no learning rate to tune (Kornblith
et al., "Do better ImageNet models transfer better?", 2019, https://arxiv.org/abs/1805.08974, appendix A.2, use L-BFGS).
Differs from the papers: the regularisation is chosen on validation images, and the probe is not refitted with them.
"""
# n training and m validation images, D feature width, K classes or labels, C strength: the inverse of regularisation

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vision_mtl.core.errors import unknown
from vision_mtl.data.label_kinds import label_kind, probed_kinds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, strongest regularisation first: each fit starts from the last one
DEFAULT_STRENGTH = 1e-2  # without a choice: standardised features rarely overfit, and the fit is fast
FEW_VALIDATION = 5  # images per class; with fewer, the choice of a strength is mostly luck


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: `weight` (D, K) and `bias` (K,) on standardised features.

    `strength` was chosen by `val_score`, None without validation images. A class without training images has the bias
    -inf, hence probability 0.
    """

    kind: str
    weight: np.ndarray
    bias: np.ndarray
    strength: float
    val_score: float | None
    converged: bool

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(n, D) -> class or label probabilities (n, K), or values (n,)."""
        scores = features @ self.weight + self.bias
        kind = label_kind(self.kind)
        return kind.probabilities(torch.from_numpy(scores)).numpy() if kind.has_classes else scores[:, 0]


def feature_statistics(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D,) float64 of the rows `train` of (N, D); the deviation of a constant feature is inf."""
    rows = np.asarray(features, np.float64)[train]
    mean, deviation = rows.mean(0), rows.std(0)
    return mean, np.where(deviation > 1e-12 * (1 + abs(mean)), deviation, np.inf)


def standardise(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float64 with mean 0 and deviation 1 over the rows `train`; constant features become 0."""
    mean, deviation = feature_statistics(features, train)
    return (np.asarray(features, np.float64) - mean) / deviation


def fit_linear_probe(
    kind: str,
    train_x: np.ndarray,
    train_y: np.ndarray,
    val_x: np.ndarray,
    val_y: np.ndarray,
    *,
    num_outputs: int,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """Fit a probe to standardised features (n, D) with every strength, and return the best on validation (m, D).

    Labels are classes (n,) int64, (n, K) of 0 and 1, or numbers (n,). The criterion is accuracy, macro AUROC or the
    mean absolute error; a tie goes to the stronger regularisation. Without a validation image to choose by,
    `DEFAULT_STRENGTH` is used. Raises `UserError` for a kind of label without a probe, `ValueError` without a strength.
    """
    if kind not in probed_kinds():
        raise unknown("kind of task for a linear probe", kind, probed_kinds())
    choices = sorted(strengths) if len(val_x) or len(strengths) == 1 else [DEFAULT_STRENGTH]
    path = label_kind(kind).probe_path(train_x, train_y, num_outputs, choices)
    probes = (LinearProbe(kind, weight, bias, strength, None, converged) for strength, weight, bias, converged in path)
    if len(val_x) == 0:
        return next(probes)
    scored = ((label_kind(kind).validation_score(probe.predict(val_x), val_y), probe) for probe in probes)
    score, best = max(scored, key=lambda pair: pair[0])  # the first of equal ones
    return replace(best, val_score=score)


def validation_warning(kind: str, count: int, num_outputs: int) -> str | None:
    """Return a warning if the `count` validation images of a task are too few to choose by; else None."""
    groups = num_outputs if label_kind(kind).one_class else 1
    if count == 0:
        return f"no validation image: nothing is chosen, C is {DEFAULT_STRENGTH:g} and k the smallest."
    if count < FEW_VALIDATION * groups:
        return f"{count} validation images for {num_outputs} classes: layer, C and k are chosen mostly by luck."
    return None

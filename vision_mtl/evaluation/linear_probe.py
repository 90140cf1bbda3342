"""The linear probe: how much of a task can be read off frozen features by one linear layer, fitted to its optimum.

Multinomial logistic regression for classes (Alain and Bengio, "Understanding intermediate layers using linear
classifier probes", 2016, https://arxiv.org/abs/1610.01644), one logistic regression a label for several labels, ridge
regression for numbers. Solved by L-BFGS rather than trained by SGD, so there is no learning rate to tune and nothing to
blame on it (Kornblith et al., "Do better ImageNet models transfer better?", 2019, https://arxiv.org/abs/1805.08974,
appendix A.2). Differs from the papers: the strength is chosen on validation images and the probe is not fitted to them.
"""
# n training and m validation images, D feature width, K classes or labels, C strength: the inverse of regularisation

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vision_mtl.core.errors import unknown
from vision_mtl.data.label_kinds import label_kind, probed_kinds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, the strongest regularisation first: each fit warms up the next
DEFAULT_STRENGTH = 1e-2  # where nothing is chosen: standardised features then rarely overfit, and it is soon fitted
FEW_VALIDATION = 5  # images a class below which a chosen strength is mostly luck


@dataclass(frozen=True)
class LinearProbe:
    """`weight` (D, K) and `bias` (K,) on standardised features; `val_score` is what `strength` was chosen by.

    A class that no training image has gets the bias -inf, hence probability 0.
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
    known = np.asarray(features, np.float64)[train]
    mean, deviation = known.mean(0), known.std(0)
    return mean, np.where(deviation > 1e-12 * (1 + abs(mean)), deviation, np.inf)


def standardise(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float64 of mean 0 and deviation 1 over the rows `train`; constant features become 0."""
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
    """Fit on standardised features (n, D) for every strength, keep the best on validation (m, D).

    Labels: classes (n,) int64; (n, K) of 0 and 1; or (n,) numbers. Best: accuracy, macro AUROC or least absolute
    error; a tie goes to the stronger regularisation. Without a validation image `DEFAULT_STRENGTH` is taken. Raises
    `UserError` for a kind that has no probe.
    """
    if kind not in probed_kinds():
        raise unknown("kind of task for a linear probe", kind, probed_kinds())
    choices = sorted(strengths) if len(val_x) else [DEFAULT_STRENGTH]
    best: LinearProbe | None = None
    for strength, weight, bias, converged in label_kind(kind).probe_path(train_x, train_y, num_outputs, choices):
        probe = LinearProbe(kind, weight, bias, strength, None, converged)
        score = label_kind(kind).validation_score(probe.predict(val_x), val_y) if len(val_x) else None
        if best is None or score > best.val_score:
            best = LinearProbe(kind, weight, bias, strength, score, converged)
    return best


def validation_warning(kind: str, val_y: np.ndarray, num_outputs: int) -> str | None:
    """What to say if the validation images, of labels (m,) or (m, K), are too few to choose by."""
    groups = num_outputs if label_kind(kind).one_class else 1
    if len(val_y) == 0:
        return f"no validation image: nothing is chosen, C is {DEFAULT_STRENGTH:g} and k the smallest."
    if len(val_y) < FEW_VALIDATION * groups:
        return f"{len(val_y)} validation images for {num_outputs} classes: layer, C and k are chosen mostly by luck."
    return None

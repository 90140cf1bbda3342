"""The linear probe: how much of a task can be read off frozen features by one linear layer, fitted to its optimum.

Multinomial logistic regression for classes (Alain and Bengio, "Understanding intermediate layers using linear
classifier probes", 2016, https://arxiv.org/abs/1610.01644), one logistic regression a label for several labels, ridge
regression for numbers. Solved by L-BFGS rather than trained by SGD, so there is no learning rate to tune and nothing to
blame on it (Kornblith et al., "Do better ImageNet models transfer better?", 2019, https://arxiv.org/abs/1805.08974,
appendix A.2). Differs from the papers: the strength is chosen on validation images and the probe is not fitted to them.
"""
# n training and m validation images, D feature width, K classes or labels, C strength: the inverse of regularisation

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from vision_mtl.core.errors import unknown

KINDS = ("single_label", "multi_label", "regression")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, the strongest regularisation first: each fit warms up the next
DEFAULT_STRENGTH = 1e-2  # where nothing is chosen: standardised features then rarely overfit, and it is soon fitted
TOLERANCE = 1e-5  # largest gradient of the mean loss at the end; scikit-learn's 1e-4 leaves 1 % of the weights' norm
MAX_STEPS = 1000  # of L-BFGS; the weakest regularisation takes 350 on 3,500 x 512
FEW_VALIDATION = 5  # images a class below which a chosen strength is mostly luck

Path = Iterator[tuple[float, np.ndarray, np.ndarray, bool]]  # C, weight (D, K), bias (K,), converged


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
        if self.kind == "regression":
            return scores[:, 0]
        return softmax(scores, axis=1) if self.kind == "single_label" else expit(scores)


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
    if kind not in KINDS:
        raise unknown("kind of task for a linear probe", kind, KINDS)
    paths = {"single_label": _class_path, "multi_label": _label_path, "regression": _value_path}
    choices = sorted(strengths) if len(val_x) else [DEFAULT_STRENGTH]
    best: LinearProbe | None = None
    for strength, weight, bias, converged in paths[kind](train_x, train_y, num_outputs, choices):
        probe = LinearProbe(kind, weight, bias, strength, None, converged)
        score = validation_score(kind, probe.predict(val_x), val_y) if len(val_x) else None
        if best is None or score > best.val_score:
            best = LinearProbe(kind, weight, bias, strength, score, converged)
    return best


def validation_score(kind: str, prediction: np.ndarray, true: np.ndarray) -> float:
    """What choices are made by, larger is better: accuracy, macro AUROC, or the negative mean absolute error.

    `prediction` is what a probe predicts, (m, K) or (m,); `true` the labels, (m,), or (m, K) for several labels.
    Labels that validation shows on one side only have no AUROC; where all are such, their mean accuracy counts.
    """
    if kind == "single_label":
        return float(np.mean(prediction.argmax(1) == true))
    if kind == "regression":
        return -float(np.mean(abs(prediction - true)))
    both = (true > 0).any(0) & (true == 0).any(0)
    if not both.any():
        return float(np.mean((prediction > 0.5) == true))
    return float(roc_auc_score(true[:, both], prediction[:, both], average="macro"))


def validation_warning(kind: str, val_y: np.ndarray, num_outputs: int) -> str | None:
    """What to say if the validation images, of labels (m,) or (m, K), are too few to choose by."""
    groups = num_outputs if kind == "single_label" else 1
    if len(val_y) == 0:
        return f"no validation image: nothing is chosen, C is {DEFAULT_STRENGTH:g} and k the smallest."
    if len(val_y) < FEW_VALIDATION * groups:
        return f"{len(val_y)} validation images for {num_outputs} classes: layer, C and k are chosen mostly by luck."
    return None


def _class_path(x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> Path:
    present = np.unique(y)
    weight, bias = np.zeros((x.shape[1], num_outputs)), np.full(num_outputs, -np.inf)
    if len(present) == 1:
        bias[present] = 0.0
        yield strengths[0], weight, bias, True
        return
    for strength, coefficients, intercept, converged in _logistic_path(x, y, strengths):
        weight, bias = weight.copy(), bias.copy()
        bias[present], weight[:, present] = 0.0, 0.0
        # of two classes scikit-learn fits only the second one's score
        columns = present[1:] if len(present) == 2 else present
        weight[:, columns], bias[columns] = coefficients.T, intercept
        yield strength, weight, bias, converged


def _label_path(x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> Path:
    varying = [k for k in range(num_outputs) if np.ptp(y[:, k]) > 0]
    paths = [_logistic_path(x, y[:, k], strengths) for k in varying]
    for strength in strengths:
        weight = np.zeros((x.shape[1], num_outputs))
        bias = np.where(y[0] > 0, np.inf, -np.inf)  # a label that is always or never there
        done = True
        for k, path in zip(varying, paths, strict=True):
            _, coefficients, intercept, converged = next(path)
            weight[:, k], bias[k], done = coefficients[0], intercept[0], done and converged
        yield strength, weight, bias, done


def _value_path(x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> Path:
    for strength in strengths:
        model = Ridge(alpha=1 / strength).fit(x, np.asarray(y, np.float64))
        yield strength, model.coef_[:, None], np.array([model.intercept_]), True


def _logistic_path(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> Path:
    """scikit-learn's (C, coefficients, intercept, converged) along the strengths, each fit starting from the last."""
    model = LogisticRegression(warm_start=True, tol=TOLERANCE, max_iter=MAX_STEPS)
    for strength in strengths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=strength).fit(x, y)
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        yield strength, model.coef_.copy(), model.intercept_.copy(), converged

"""Temperature scaling: calibrated probabilities by one number per task, fitted on validation images.

Guo et al., "On calibration of modern neural networks", 2017, https://arxiv.org/abs/1706.04599, sec. 4.2. It changes
probabilities but no decision.
"""
# n images, K classes

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from vision_mtl.data.label_kinds import LabelKind

RANGE = (0.05, 20.0)  # of the search: beyond it, probabilities are 0 and 1, or uniform
FEWEST = 10  # validation images; with fewer the fit would follow noise, so the temperature stays 1


def fit_temperature(kind: LabelKind, logits: Tensor, true: Tensor) -> float:
    """Return the temperature of least loss for logits (n, K) and labels in the form of the kind's loss.

    It is 1.0 for fewer than `FEWEST` images.
    """
    if len(logits) < FEWEST:
        return 1.0
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(kind.loss(scaled, true, weights=None, smoothing=0.0).mean())

    found = minimize_scalar(loss, bounds=tuple(math.log(t) for t in RANGE), method="bounded")
    return float(torch.tensor(math.exp(found.x), dtype=torch.float32))

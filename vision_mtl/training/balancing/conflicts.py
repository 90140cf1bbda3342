"""Cosines between the tasks' gradients on the shared parameters, measured every few steps.

Yu et al., "Gradient surgery for multi-task learning", 2020, https://arxiv.org/abs/2001.06782, sec. 2: two tasks are in
conflict where the cosine is negative.
"""
# T losses, P shared parameters (scalars)

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.gradient_matrix import GradientMatrix


def cosines(matrix: Tensor) -> Tensor:
    """Return the cosines (T, T) between gradients (T, P), in [-1, 1]; NaN in the row and column of a zero gradient."""
    gram = matrix @ matrix.T
    norms = gram.diagonal().sqrt()
    return (gram / torch.outer(norms, norms)).clamp(-1, 1)


class Conflicts(nn.Module):
    """Measures the cosines every `every_steps` steps (0: never) and keeps the latest ones, (T, T) or None.

    It is a module so that checkpoints hold the latest measurement: log lines repeat it until the next one.
    """

    def __init__(self, names: Sequence[str], shared: Sequence[nn.Parameter], every_steps: int = 0) -> None:
        super().__init__()
        self.names, self.shared, self.every_steps = list(names), list(shared), every_steps
        self.latest: Tensor | None = None
        self._gradients: GradientMatrix | None = None

    def due(self, step: int) -> bool:
        """Return whether `step`, counted from 0, is measured."""
        return bool(self.every_steps and self.shared) and step % self.every_steps == 0

    def measure(self, losses: Mapping[str, Tensor], scale: float) -> None:
        """Add `scale` times the gradients of a micro-batch's losses (scalars); graphs and `.grad` do not change."""
        matrix = self._matrix()
        for name, loss in losses.items():
            gradients = torch.autograd.grad(loss, self.shared, retain_graph=True, allow_unused=True)
            matrix.add(self.names.index(name), gradients, scale)

    def finish(self) -> None:
        """End a measured step: average the gradients over processes, keep the cosines and free the matrix."""
        matrix = self._matrix()  # empty if this process had no loss; other processes may have had some
        matrix.average()
        self.record(matrix)
        self._gradients = None

    def record(self, gradients: GradientMatrix) -> None:
        """Keep the cosines of gradients that the caller has computed already."""
        self.latest = cosines(gradients.matrix).cpu()

    def get_extra_state(self) -> Tensor:
        """Return the latest cosines (T, T), or an empty tensor."""
        return torch.empty(0) if self.latest is None else self.latest

    def set_extra_state(self, state: Tensor) -> None:
        """Load cosines (T, T), or an empty tensor for none."""
        self.latest = state if state.numel() else None

    def scalars(self) -> dict[str, float]:
        """Return `cosine.A.B` for each pair of losses that were both present."""
        if self.latest is None:
            return {}
        pairs = itertools.combinations(range(len(self.names)), 2)
        values = {f"cosine.{self.names[i]}.{self.names[j]}": float(self.latest[i, j]) for i, j in pairs}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _matrix(self) -> GradientMatrix:
        self._gradients = self._gradients or GradientMatrix(len(self.names), self.shared)
        return self._gradients


def cosines_over_steps(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured steps (n,) and their cosines (n, T, T), NaN where a pair was not measured.

    `records` are lines of metrics.jsonl with `step` and `cosine.A.B`.
    """
    measured = [r for r in records if any(key.startswith("cosine.") for key in r)]
    cosine = np.full((len(measured), len(names), len(names)), np.nan)
    for n, record in enumerate(measured):
        cosine[n][np.diag_indices(len(names))] = 1
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
            value = record.get(f"cosine.{a}.{b}", record.get(f"cosine.{b}.{a}"))
            cosine[n, i, j] = cosine[n, j, i] = np.nan if value is None else value
    return np.array([r["step"] for r in measured]), cosine

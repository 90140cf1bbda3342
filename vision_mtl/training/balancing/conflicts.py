"""Do the objectives pull the shared parameters apart? Cosines between their gradients, measured now and then.

Yu et al., "Gradient surgery for multi-task learning", 2020, https://arxiv.org/abs/2001.06782, sec. 2: two tasks are in
conflict where the cosine is negative.
"""
# T objectives, P shared parameters (scalars)

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.training.balancing.gradient_matrix import GradientMatrix


def cosines(matrix: Tensor) -> Tensor:
    """Gradients (T, P) -> (T, T) cosines in [-1, 1], NaN beside a row of zeros."""
    gram = matrix @ matrix.T
    norms = gram.diagonal().sqrt()
    return (gram / torch.outer(norms, norms)).clamp(-1, 1)


class Conflicts(nn.Module):
    """Measures every `every_steps` steps (0: never) and keeps the last measurement, `latest` (T, T) or None.

    A module only so that a checkpoint holds that measurement: the lines that follow it repeat it.
    """

    def __init__(self, names: Sequence[str], shared: Sequence[nn.Parameter], every_steps: int = 0) -> None:
        super().__init__()
        self.names, self.shared, self.every_steps = list(names), list(shared), every_steps
        self.latest: Tensor | None = None
        self._rows: GradientMatrix | None = None

    def due(self, step: int) -> bool:
        """Whether this step, counted from 0, is to be measured."""
        return bool(self.every_steps and self.shared) and step % self.every_steps == 0

    def measure(self, losses: Mapping[str, Tensor], scale: float) -> None:
        """Add one part of a step: a backward pass for each loss, which leaves every graph and `.grad` as it was."""
        self._rows = self._rows or GradientMatrix(len(self.names), self.shared)
        for name, loss in losses.items():
            gradients = torch.autograd.grad(loss, self.shared, retain_graph=True, allow_unused=True)
            self._rows.add(self.names.index(name), gradients, scale)

    def finish(self) -> None:
        """End a measured step: average over processes, keep the cosines and free the rows."""
        self._rows = self._rows or GradientMatrix(
            len(self.names), self.shared
        )  # nothing seen here, but perhaps elsewhere
        self._rows.average()
        self.record(self._rows)
        self._rows = None

    def record(self, rows: GradientMatrix) -> None:
        """Keep the cosines of rows that were needed anyway."""
        self.latest = cosines(rows.matrix).cpu()

    def get_extra_state(self) -> Tensor:
        """The last measurement, or an empty tensor."""
        return torch.empty(0) if self.latest is None else self.latest

    def set_extra_state(self, state: Tensor) -> None:
        """Take a measurement over."""
        self.latest = state if state.numel() else None

    def figures(self) -> dict[str, float]:
        """`cosine.A.B` for each pair of objectives that were both present."""
        if self.latest is None:
            return {}
        pairs = itertools.combinations(range(len(self.names)), 2)
        values = {f"cosine.{self.names[i]}.{self.names[j]}": float(self.latest[i, j]) for i, j in pairs}
        return {name: value for name, value in values.items() if math.isfinite(value)}


def cosines_over_steps(records: Sequence[Mapping[str, object]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lines of metrics.jsonl with `step` and `cosine.A.B` -> steps (n,), cosines (n, T, T), NaN where not measured."""
    measured = [r for r in records if any(key.startswith("cosine.") for key in r)]
    cosine = np.full((len(measured), len(names), len(names)), np.nan)
    for n, record in enumerate(measured):
        cosine[n][np.diag_indices(len(names))] = 1
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
            value = record.get(f"cosine.{a}.{b}", record.get(f"cosine.{b}.{a}"))
            cosine[n, i, j] = cosine[n, j, i] = np.nan if value is None else value
    return np.array([r["step"] for r in measured]), cosine

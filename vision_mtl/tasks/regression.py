"""A number per image: half the squared error, in units of the labels' standard deviation."""
# B images, n scored

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.sums import Measure, divide, ratio
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, ProbePath, TaskHeadSpec
from vision_mtl.data.targets import is_number
from vision_mtl.models.decoder import LogitHead

VALUE_STRATA = 10  # deciles


class ValueHead(LogitHead):
    """One number per image in the labels' unit, (B, 1); `offset` and `scale` are saved with the weights."""

    offset: Tensor
    scale: Tensor

    def __init__(self, num_features: int, offset: float, scale: float) -> None:
        super().__init__(num_features, 1)
        self.register_buffer("offset", torch.tensor(offset))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, last_map: Tensor) -> Tensor:
        """Return (B, 1) numbers from the last feature map (B, D, h, w)."""
        return super().forward(last_map).float() * self.scale + self.offset

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the numbers unchanged, as float32."""
        return outputs.float()


@LABEL_KINDS.register("regression")
class Regression(LabelKind):
    """A number: `values` (N,) float32, NaN for no label."""

    meaning = "a number"
    form = "(N, 1) numbers"
    headline = "mae"
    image_value = "minus the absolute error"
    image_metric = "mae"
    missing = math.nan
    has_classes = False

    def parse(
        self, name: str, texts: Sequence[str | None], identities: Sequence[str], separator: str
    ) -> tuple[list[str], np.ndarray]:
        """Parse finite numbers; there are no class names."""
        pairs = zip(texts, identities, strict=True)
        values = [math.nan if text is None else _number(name, text, identity) for text, identity in pairs]
        return [], np.array(values, np.float32)

    def num_outputs(self, class_names: Sequence[str]) -> int:
        """Return 1."""
        return 1

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return (B,) float32."""
        return torch.from_numpy(values)

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count each image once, as class 0."""
        images = np.arange(len(values))
        return images, np.zeros_like(images), np.ones_like(images)

    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return the decile of each label (N,)."""
        edges = np.quantile(values, np.linspace(0, 1, VALUE_STRATA + 1)[1:-1])
        return np.searchsorted(edges, values, side="right")

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation (1 for constant labels)."""
        wide = values.astype(np.float64)
        return float(wide.mean()), float(wide.std()) or 1.0

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a head with one number, which starts near the labels' mean."""
        return ValueHead(num_features, spec.offset, spec.scale)

    def loss(
        self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float, scale: float
    ) -> Tensor:
        """Return the (B,) half squared error divided by `scale` squared; outputs (B, 1), labels (B,)."""
        return 0.5 * ((outputs[:, 0] - labels.to(outputs.dtype)) / scale).square()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the numbers unchanged, as float32."""
        return outputs.float()

    def decide(self, numbers: Array) -> Array:
        """Return the numbers (B,), from (B, 1) or (B,)."""
        return numbers.reshape(len(numbers))

    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return minus the absolute error (n,), in the labels' unit."""
        return -abs(self.decide(numbers) - values).astype(np.float64)

    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Return `mae` in the labels' unit, and `r2`: at most 1, below 0 if the mean is better, absent for constant
        labels."""
        error = np.subtract(self.decide(numbers), values, dtype=np.float64)
        centred = values - np.mean(values, dtype=np.float64)
        sums = np.stack([abs(error), np.ones(len(error)), error**2, centred, centred**2], axis=1)
        varies = len(error) > 1 and np.ptp(values) > 0
        return {"mae": Measure(sums, ratio(0, 1))} | ({"r2": Measure(sums, r2)} if varies else {})

    def goodness(self, image_values: np.ndarray, values: np.ndarray) -> float:
        """Return 1 minus the mean absolute error over the labels' mean absolute deviation from their median."""
        wide = np.sort(values.astype(np.float64))
        spread = float(abs(wide - wide[(len(wide) - 1) // 2]).mean())
        value = float(image_values.mean())
        return 1 + value / spread if spread else value

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Yield ridge regressions."""
        from vision_mtl.tasks.linear_fits import value_path  # late: only a probe needs scikit-learn

        return value_path(x, y, strengths)

    def neighbour_votes(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return the numbers (n, 1), which are averaged over neighbours."""
        return values[:, None]

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return the median (1, 1)."""
        return np.full((1, 1), np.median(values))

    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `value`."""
        return {"value": float(value)}

    def prediction(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `value`, without a probability."""
        return self.describe(numbers[0], class_names)


def r2(sums: np.ndarray) -> np.ndarray:
    """Return R^2 (...,) from sums (..., 5) of |error|, 1, error^2, label and label^2, with labels minus their mean."""
    _, count, squared_error, total, squares = np.moveaxis(sums, -1, 0)
    return 1 - divide(squared_error, squares - divide(total**2, count))


def _number(name: str, text: str, identity: str) -> float:
    if not is_number(text):
        comma = " Write a decimal point and no comma." if is_number(text.replace(",", ".")) else ""
        raise UserError(
            f"task {name!r}: the label of {identity!r} must be a finite number (kind regression), or blank for none; "
            f"found {text!r}.{comma}"
        )
    return float(text)

"""A number an image: half the squared error, in units of the labels' standard deviation."""
# B images, n scored

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.sums import Measure, divide, ratio
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, ProbePath, TaskHeadSpec
from vision_mtl.data.targets import is_number
from vision_mtl.models.decoder import LogitHead

if TYPE_CHECKING:
    from vision_mtl.data.options import Task

VALUE_STRATA = 10  # deciles


class ValueHead(LogitHead):
    """One number an image, in the labels' own unit: (B, 1). The unit is a buffer and travels with the weights."""

    offset: Tensor
    scale: Tensor

    def __init__(self, num_features: int, offset: float, scale: float) -> None:
        super().__init__(num_features, 1)
        self.register_buffer("offset", torch.tensor(offset))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, last_map: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, 1)."""
        return super().forward(last_map).float() * self.scale + self.offset

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The numbers themselves."""
        return outputs.float()


@LABEL_KINDS.register("regression")
class Regression(LabelKind):
    """`values` (N,) float32, NaN where there is no label."""

    meaning = "a number"
    form = "(N, 1) numbers"
    headline = "mae"
    image_value = "minus the absolute error"
    image_metric = "mae"
    missing = math.nan
    has_classes = False

    def parse(
        self, name: str, task: Task, texts: Sequence[str | None], identities: Sequence[str]
    ) -> tuple[list[str], np.ndarray]:
        """The text is a finite number; there are no class names."""
        pairs = zip(texts, identities, strict=True)
        values = [math.nan if text is None else _number(name, text, identity) for text, identity in pairs]
        return [], np.array(values, np.float32)

    def num_outputs(self, class_names: Sequence[str]) -> int:
        """1."""
        return 1

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """(B,) float32."""
        return torch.from_numpy(values)

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every number counts as of one class, 0."""
        images = np.arange(len(values))
        return images, np.zeros_like(images), np.ones_like(images)

    def strata(self, values: np.ndarray) -> np.ndarray:
        """(N,): the decile."""
        edges = np.quantile(values, np.linspace(0, 1, VALUE_STRATA + 1)[1:-1])
        return np.searchsorted(edges, values, side="right")

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation; 1 for labels that do not vary."""
        wide = values.astype(np.float64)
        return float(wide.mean()), float(wide.std()) or 1.0

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """One number, which starts near the labels' mean."""
        return ValueHead(num_features, spec.offset, spec.scale)

    def loss(
        self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float, scale: float
    ) -> Tensor:
        """(B, 1) and (B,) numbers -> (B,) half the squared error over `scale` squared."""
        return 0.5 * ((outputs[:, 0] - labels.to(outputs.dtype)) / scale).square()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The numbers themselves."""
        return outputs.float()

    def decide(self, numbers: Array) -> Array:
        """(B, 1) or (B,) -> (B,)."""
        return numbers.reshape(len(numbers))

    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(n,): minus the absolute error, in the labels' unit."""
        return -abs(self.decide(numbers) - values).astype(np.float64)

    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """`mae` in the labels' unit; `r2`, at most 1, below 0 where the mean would do better, absent where the truth
        does not vary."""
        error = np.subtract(self.decide(numbers), values, dtype=np.float64)
        centred = values - np.mean(values, dtype=np.float64)
        sums = np.stack([abs(error), np.ones(len(error)), error**2, centred, centred**2], axis=1)
        varies = len(error) > 1 and np.ptp(values) > 0
        return {"mae": Measure(sums, ratio(0, 1))} | ({"r2": Measure(sums, r2)} if varies else {})

    def goodness(self, image_values: np.ndarray, values: np.ndarray) -> float:
        """The share of the labels' mean absolute deviation from their median that is explained."""
        wide = np.sort(values.astype(np.float64))
        spread = float(abs(wide - wide[(len(wide) - 1) // 2]).mean())
        value = float(image_values.mean())
        return 1 + value / spread if spread else value

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Ridge regression."""
        from vision_mtl.tasks.linear_fits import value_path  # late: only a probe needs scikit-learn

        return value_path(x, y, strengths)

    def neighbour_votes(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """(n, 1): the number, which neighbours average."""
        return values[:, None]

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """(1, 1): the median."""
        return np.full((1, 1), np.median(values))

    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """`value`."""
        return {"value": float(value)}

    def answer(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """`value`, without a probability."""
        return self.describe(numbers[0], class_names)


def r2(sums: np.ndarray) -> np.ndarray:
    """(..., 5) sums of |error|, 1, error squared, label and label squared -> (...,), labels less their mean."""
    _, count, squared_error, total, squares = np.moveaxis(sums, -1, 0)
    return 1 - divide(squared_error, squares - divide(total**2, count))


def _number(name: str, text: str, identity: str) -> float:
    if not is_number(text):
        raise UserError(
            f"task {name!r}: the label of {identity!r} must be a finite number (kind regression), or blank for none; "
            f"found {text!r}."
        )
    return float(text)

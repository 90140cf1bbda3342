"""A number per image: half the squared error of numbers standardised on the training labels.

Labels and predictions are float64 in their own unit; only standardised numbers are float32, which has seven digits: a
time in seconds would be rounded to two minutes.
"""
# B images, D feature width, n scored

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vision_mtl.core.errors import UserError
from vision_mtl.core.sums import Measure, divide, ratio
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, ProbePath, TaskHeadSpec
from vision_mtl.models.decoder import LogitHead

VALUE_STRATA = 10  # deciles
SHOWN = 3  # labels named in a warning
FAR = 30.0  # a normal distribution has no label beyond 5, incomes few
FEWEST_STEPS = 2.0**12  # of float64, over the range of the labels
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # of a label's size
ROUNDING = 4 * np.finfo(np.float64).eps  # relative differences of labels that are no more than rounding


class ValueHead(LogitHead):
    """A standardised number per image, (B, 1), from the last feature map; `probabilities` returns the labels' unit.

    `offset` and `scale` are saved with the weights, each as a sum of two float32 buffers: one alone is too coarse, and
    Apple's GPUs have no float64. Checkpoints of earlier versions have only the first of each.
    """

    offset: Tensor
    offset_rest: Tensor
    scale: Tensor
    scale_rest: Tensor

    def __init__(self, num_features: int, offset: float, scale: float) -> None:
        super().__init__(num_features, 1)
        for name, value in (("offset", offset), ("scale", scale)):
            for part, number in zip(("", "_rest"), _two_parts(value), strict=True):
                self.register_buffer(f"{name}{part}", torch.tensor(number))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return numbers in the labels' unit, float64, from standardised ones of any shape."""
        parts = [outputs, self.offset, self.offset_rest, self.scale, self.scale_rest]
        if outputs.device.type == "mps":
            parts = [part.cpu() for part in parts]
        wide, offset, offset_rest, scale, scale_rest = (part.double() for part in parts)
        return wide * (scale + scale_rest) + (offset + offset_rest)

    @property
    def unit(self) -> tuple[float, float]:
        """The offset and scale."""
        return float(self.offset) + float(self.offset_rest), float(self.scale) + float(self.scale_rest)

    def set_unit(self, offset: float, scale: float) -> None:
        """Standardise by another `offset` and `scale`; the predictions in the labels' unit stay the same."""
        old_offset, old_scale = self.unit
        new = [*_two_parts(offset), *_two_parts(scale)]
        buffers = [self.offset, self.offset_rest, self.scale, self.scale_rest]
        if new == [float(buffer) for buffer in buffers]:
            return
        with torch.no_grad():
            self.project.weight.mul_(old_scale / scale)
            self.project.bias.copy_((self.project.bias.cpu().double() * old_scale + (old_offset - offset)) / scale)
            for buffer, number in zip(buffers, new, strict=True):
                buffer.fill_(number)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("offset", "scale"):
            if prefix + name in state_dict:
                state_dict.setdefault(f"{prefix}{name}_rest", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _two_parts(number: float) -> tuple[float, float]:
    """Return two float32 numbers whose sum is `number` to 15 digits."""
    first = float(np.float32(number))
    return first, float(np.float32(number - first))


@LABEL_KINDS.register("regression")
class Regression(LabelKind):
    """A number: `values` (N,) float64, NaN for no label."""

    meaning = "a number"
    form = "(N, 1) float64 numbers"
    headline = "mae"
    image_value = "minus the absolute error"
    image_metric = "mae"
    missing = math.nan
    has_classes = False

    def parse(
        self, name: str, texts: Sequence[str | None], identities: Sequence[str], separator: str
    ) -> tuple[list[str], np.ndarray]:
        """Parse finite numbers; there are no class names."""
        values, wrong = np.full(len(texts), math.nan), []
        for row, (text, identity) in enumerate(zip(texts, identities, strict=True)):
            if text is not None and (fault := number_fault(text)):
                wrong.append(f"{text!r} of {identity!r}, which {fault}")
            elif text is not None:
                values[row] = float(text)
        if wrong:
            more = f" ({len(wrong)} labels in all)" if len(wrong) > 1 else ""
            raise UserError(
                f"task {name!r}: a label of kind regression must be a finite number, or blank for none; found "
                f"{wrong[0]}{more}."
            )
        _check_resolution(name, values[~np.isnan(values)])
        return [], values

    def warnings(self, name: str, values: np.ndarray, identities: Sequence[str]) -> list[str]:
        """Warn about numbers that lie far from the others: a mean and a deviation with them describe none of the rest.

        Far is `FAR` times the distance between the quartiles from the median.
        """
        known = values[~np.isnan(values)]
        if not len(known):
            return []
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
        far = np.flatnonzero((abs(values - middle) > FAR * (high - low)) & (high > low))
        if not len(far):
            return []
        shown = ", ".join(f"{values[row]:g} of {identities[row]!r}" for row in far[:SHOWN])
        return [
            f"task {name!r}: {len(far)} labels lie far from the others, half of which are {low:g} to {high:g}: {shown}."
            " If they mean that the number is unknown, leave their cells blank."
        ]

    def num_outputs(self, class_names: Sequence[str]) -> int:
        """Return 1."""
        return 1

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return (B,) float32."""
        return torch.from_numpy(values.astype(np.float32))

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count each image once, as class 0."""
        images = np.arange(len(values))
        return images, np.zeros_like(images), np.ones_like(images)

    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return the decile of each label (N,)."""
        edges = np.quantile(values, np.linspace(0, 1, VALUE_STRATA + 1)[1:-1])
        return np.searchsorted(edges, values, side="right")

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation; 1 if labels differ by no more than the rounding of float64."""
        wide = values.astype(np.float64)
        if not len(wide):
            return 0.0, 1.0
        offset, scale = float(wide.mean()), float(wide.std())
        return offset, scale if scale > max(ROUNDING * float(abs(wide).max()), SMALLEST) else 1.0

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a head with one number, which starts near the labels' mean."""
        return ValueHead(num_features, spec.offset, spec.scale)

    def loss(self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
        """Return the (B,) half squared error of standardised numbers; outputs (B, 1), labels (B,)."""
        return 0.5 * (outputs[:, 0] - labels.to(outputs.dtype)).square()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the outputs as float64, still standardised: only the head knows the labels' unit."""
        return outputs.double()

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
        return {"mae": Measure(sums, ratio(0, 1), limits=(0, math.inf))} | (
            {"r2": Measure(sums, r2, limits=(-math.inf, 1))} if varies else {}
        )

    def instance_columns(
        self, numbers: np.ndarray, values: np.ndarray, class_names: Sequence[str]
    ) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """Return the true and the predicted number."""
        return {"true_number": values.astype(np.float64), "said_number": self.decide(numbers).astype(np.float64)}

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


def _check_resolution(name: str, values: np.ndarray) -> None:
    """Raise `UserError` if the labels differ by so little that float64 rounds their differences."""
    if not len(values):
        return
    spread, largest = float(np.ptp(values)), float(abs(values).max())
    if 0 < spread < FEWEST_STEPS * float(np.spacing(largest)):
        raise UserError(
            f"task {name!r}: the labels lie within {spread:g} around {largest!r}, where numbers of 64 bits are "
            f"{np.spacing(largest):g} apart, so their differences are lost. Subtract a constant from all labels, or, "
            f"if they are names, use --tasks.{name}.kind single_label."
        )


def number_fault(text: str) -> str | None:
    """Return why a label's text is refused as a number, or None if it is one."""
    try:
        number = float(text)
    except ValueError:
        return "has a comma (write a decimal point, and nothing between thousands)" if "," in text else "is no number"
    if "_" in text:
        return "has an underscore"
    if math.isnan(number) or "inf" in text.lower():
        return "is not finite"
    if abs(number) > LARGEST or 0 < abs(number) < SMALLEST:
        return f"is out of range (0, or {SMALLEST:.2g} to {LARGEST:.2g} in size)"
    return None

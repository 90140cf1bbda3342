"""One class per image: softmax cross-entropy."""
# B images, n scored, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.sums import SHARE, Measure, mean_of
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, ProbePath, TaskHeadSpec, by_class, rounded
from vision_mtl.data.targets import class_names_of
from vision_mtl.tasks.class_metrics import (
    balanced_accuracy,
    calibration_error,
    class_counts,
    macro_auroc,
    macro_f1,
    one_hot,
)
from vision_mtl.tasks.heads import ClassHead


@LABEL_KINDS.register("single_label")
class SingleLabel(LabelKind):
    """One class: `values` (N,) int64 are class numbers, -1 for no label."""

    meaning = "one class"
    form = "(N, K) probabilities that sum to 1"
    headline = "accuracy"
    image_value = "accuracy"
    one_class = True
    has_pseudo_labels = True

    def parse(
        self, name: str, texts: Sequence[str | None], identities: Sequence[str], separator: str
    ) -> tuple[list[str], np.ndarray]:
        """Parse labels: the whole text is the class."""
        class_names = class_names_of([text for text in texts if text is not None])
        numbers = {found: k for k, found in enumerate(class_names)}
        return class_names, np.array([-1 if text is None else numbers[text] for text in texts], np.int64)

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return (B,) int64."""
        return torch.from_numpy(values)

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count the class of each image once."""
        return np.arange(len(values)), values, np.ones_like(values)

    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return the classes (N,)."""
        return values

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a head with K logits."""
        return ClassHead(self, num_features, spec.num_outputs)

    def loss(self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
        """Return the (B,) cross-entropy in nats; logits (B, K), classes (B,)."""
        return F.cross_entropy(outputs, labels, weight=weights, label_smoothing=smoothing, reduction="none")

    def pseudo_labels(self, outputs: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Return the decided class (B,), and whether its probability is `threshold` or more (B,)."""
        numbers = self.probabilities(outputs)
        classes = self.decide(numbers)
        return classes, numbers.gather(1, classes[:, None])[:, 0] >= threshold

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return (B, K) probabilities that sum to 1."""
        return torch.softmax(outputs, dim=1)

    def decide(self, numbers: Array) -> Array:
        """Return the most probable class (B,)."""
        return numbers.argmax(1)

    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return 1 for a correct class, else 0 (n,)."""
        return (self.decide(numbers) == values).astype(np.float64)

    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Return `accuracy`, `balanced_accuracy`, `macro_f1`, `auroc` and `calibration_error`.

        `balanced_accuracy` is the mean recall of the classes that occur, `macro_f1` the mean over those that occur or
        are predicted, `auroc` the mean of each class against the rest (absent if a class does not occur or is the only
        one), `calibration_error` uses 15 bins of the highest probability.
        """
        predicted, num_classes = self.decide(numbers), numbers.shape[1]
        is_true = one_hot(values, num_classes)
        counts = class_counts(one_hot(predicted, num_classes), is_true)
        found = {
            "accuracy": mean_of(predicted == values),
            "balanced_accuracy": Measure(counts, balanced_accuracy, limits=SHARE),
            "macro_f1": Measure(counts, macro_f1, limits=SHARE),
        }
        if num_classes > 1 and is_true.any(0).all():
            found["auroc"] = macro_auroc(numbers, is_true)
        return found | {"calibration_error": calibration_error(numbers.max(1), predicted == values)}

    def instance_columns(
        self, numbers: np.ndarray, values: np.ndarray, class_names: Sequence[str]
    ) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """Return the probability of each class."""
        return {"probabilities": numbers}

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Yield multinomial logistic regressions."""
        from vision_mtl.tasks.linear_fits import class_path  # late: only a probe needs scikit-learn

        return class_path(x, y, num_outputs, strengths)

    def neighbour_votes(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return one vote for the class (n, K)."""
        return one_hot(values, num_outputs)

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return the most frequent class, one-hot (1, K)."""
        return np.eye(num_outputs)[[np.bincount(values, minlength=num_outputs).argmax()]]

    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `class`."""
        return {"class": class_names[int(value)]}

    def prediction(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `class`, its `probability`, and all `probabilities` by class name."""
        decided = self.decide(numbers[None])[0]
        probabilities = {"probability": rounded(numbers[decided]), "probabilities": by_class(class_names, numbers)}
        return self.describe(decided, class_names) | probabilities

"""Any number of classes per image: independent probabilities, binary cross-entropy."""
# B images, n scored, K classes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.errors import UserError
from vision_mtl.core.sums import SHARE, Measure, divide
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, ProbePath, TaskHeadSpec, by_class, rounded
from vision_mtl.data.targets import NO_CLASS, class_names_of
from vision_mtl.tasks.class_metrics import class_counts, class_f1, macro_auroc, macro_f1
from vision_mtl.tasks.heads import ClassHead

THRESHOLD = 0.5  # a class with a higher probability is predicted


@LABEL_KINDS.register("multi_label")
class MultiLabel(LabelKind):
    """Any number of classes: `values` (N, K) int8 are 0 or 1 for each class, or a row of -1 for no label."""

    meaning = "any number of classes"
    form = "(N, K) probabilities, each its own"
    headline = "auroc"
    image_value = "share of right labels"
    has_pseudo_labels = True

    def parse(
        self, name: str, texts: Sequence[str | None], identities: Sequence[str], separator: str
    ) -> tuple[list[str], np.ndarray]:
        """Split the text into classes; `none` means no class, a text with only blank parts is no label."""
        pairs = zip(texts, identities, strict=True)
        sets = [None if text is None else _classes(name, separator, text, identity) for text, identity in pairs]
        class_names = class_names_of([found for parts in sets if parts is not None for found in parts])
        if not class_names and any(parts is not None for parts in sets):
            raise UserError(f"task {name!r}: every label is {NO_CLASS!r}; there is no class to learn.")
        numbers = {found: k for k, found in enumerate(class_names)}
        values = np.full((len(sets), len(class_names)), -1, np.int8)
        for row, parts in enumerate(sets):
            if parts is not None:
                values[row] = 0
                values[row, [numbers[part] for part in parts]] = 1
        return class_names, values

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return (B, K) float32."""
        return torch.from_numpy(values.astype(np.float32))

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count each class of an image once."""
        images, classes = np.nonzero(values > 0)
        return images, classes, np.ones_like(classes)

    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return an image's rarest class (N,); images without a class form another stratum."""
        frequency = np.where(values > 0, values.sum(0), len(values) + 1)  # (N, K)
        return np.where((values > 0).any(1), frequency.argmin(1), values.shape[1])

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a head with K logits."""
        return ClassHead(self, num_features, spec.num_outputs)

    def loss(self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
        """Return the (B,) binary cross-entropy in nats, averaged over classes; logits and {0, 1} labels (B, K)."""
        smooth = labels.to(outputs.dtype) * (1 - smoothing) + 0.5 * smoothing
        return F.binary_cross_entropy_with_logits(outputs, smooth, weight=weights, reduction="none").mean(1)

    def pseudo_labels(self, outputs: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Return the decisions (B, K) float32, and which are confident (B, K): of presence or of absence."""
        numbers = self.probabilities(outputs)
        return self.decide(numbers).float(), torch.maximum(numbers, 1 - numbers) >= threshold

    def pseudo_loss(
        self, outputs: Tensor, labels: Tensor, confident: Tensor, *, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """Return the (B,) mean over all classes, to which those that are not confident (B, K) add 0."""
        own = confident.to(outputs.dtype) * (1 if weights is None else weights)
        return self.loss(outputs, labels, weights=own, smoothing=smoothing)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return (B, K) independent probabilities."""
        return torch.sigmoid(outputs)

    def decide(self, numbers: Array) -> Array:
        """Return (B, K) bool: the predicted classes."""
        return numbers > THRESHOLD

    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the share of classes that are predicted correctly (n,)."""
        return (self.decide(numbers) == (values > 0)).mean(1)

    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Return `accuracy`, `macro_f1` and `auroc`, all averaged over classes.

        `auroc` covers the classes that are present in some images and absent in others; it is left out if there is no
        such class.
        """
        true, predicted = values.astype(bool), self.decide(numbers)
        counts = np.concatenate([class_counts(predicted, true), np.ones((len(true), 1))], axis=1)
        # a class that neither occurs nor is predicted counts as 0 in the value, and is left out of the interval
        f1 = float(np.nan_to_num(class_f1(counts.sum(0)[:-1])).mean())
        found = {
            "accuracy": Measure(counts, _accuracy, limits=SHARE),
            "macro_f1": Measure(counts, _macro_f1, value=f1, limits=SHARE),
        }
        both = true.any(0) & ~true.all(0)
        return found | ({"auroc": macro_auroc(numbers[:, both], true[:, both])} if both.any() else {})

    def instance_columns(
        self, numbers: np.ndarray, values: np.ndarray, class_names: Sequence[str]
    ) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """Return the true and predicted classes, and the probability of each class."""
        names = np.array(class_names, object)
        true, said = ([names[row].tolist() for row in rows] for rows in (values > 0, self.decide(numbers)))
        return {"true_classes": true, "said_classes": said, "probabilities": numbers}

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Yield logistic regressions for each class."""
        from vision_mtl.tasks.linear_fits import label_path  # late: only a probe needs scikit-learn

        return label_path(x, y, num_outputs, strengths)

    def validation_score(self, numbers: np.ndarray, values: np.ndarray) -> float:
        """Return the macro AUROC of the classes that only some images have, or else the mean accuracy."""
        from sklearn.metrics import roc_auc_score  # late: only a probe needs scikit-learn

        both = (values > 0).any(0) & (values == 0).any(0)
        if not both.any():
            return super().validation_score(numbers, values)
        return float(roc_auc_score(values[:, both], numbers[:, both], average="macro"))

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return the frequency of each class (1, K)."""
        return values.mean(0, keepdims=True)

    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `classes`."""
        return {"classes": [name for name, is_present in zip(class_names, value, strict=True) if is_present > 0]}

    def prediction(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `classes`, the `probability` of the least certain decision, and all `probabilities` by class name."""
        least = rounded(np.maximum(numbers, 1 - numbers).min())
        probabilities = {"probability": least, "probabilities": by_class(class_names, numbers)}
        return self.describe(self.decide(numbers[None])[0], class_names) | probabilities


def _accuracy(sums: np.ndarray) -> np.ndarray:
    hits, occur, predicted = np.split(sums[..., :-1], 3, axis=-1)
    wrong = (occur - hits) + (predicted - hits)
    return 1 - divide(wrong.mean(-1), sums[..., -1])


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    return macro_f1(sums[..., :-1])


def _classes(name: str, separator: str, text: str, identity: str) -> list[str] | None:
    """Return the classes of a label text, or None if all parts are blank."""
    if text == NO_CLASS:
        return []
    parts = [part.strip() for part in text.split(separator) if part.strip()]
    if NO_CLASS in parts:
        raise UserError(f"task {name!r}: the label of {identity!r} must be {NO_CLASS!r} or classes; found {text!r}.")
    return parts or None

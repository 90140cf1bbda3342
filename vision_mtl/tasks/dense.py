"""A class for each pixel: cross-entropy over the pixels of a mask. `data/masks.py` reads the masks."""
# B images, n scored, M masks, K classes, H W pixels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.core.sums import SHARE, Measure, divide
from vision_mtl.data.label_kinds import LABEL_KINDS, Array, LabelKind, TaskHeadSpec, by_class, rounded
from vision_mtl.data.targets import IGNORED, mask_tensor
from vision_mtl.tasks.class_metrics import mean_of_defined
from vision_mtl.tasks.heads import DenseHead

NO_LABEL = -1  # a pixel without a class


@LABEL_KINDS.register("dense")
class Dense(LabelKind):
    """A class for each pixel: `values` (N,) int64 are rows of `masks` (M, H, W) uint8, -1 for no label.

    For scores, outputs are kept as (n, K, K) int64 pixel counts, rows true and columns predicted, because the logits of
    all images would fill the memory.
    """

    meaning = "a class for each pixel"
    form = "(N, K, H, W) probabilities at every pixel"
    headline = "mean_iou"
    image_value = "pixel accuracy"
    image_metric = "pixel_accuracy"
    is_dense = True
    has_probe = False

    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return (B, H, W) int64, -1 for pixels without a class."""
        assert masks is not None
        chosen = masks[values]  # -1 selects the last mask, which is then ignored
        return mask_tensor(np.where((values < 0)[:, None, None], np.uint8(IGNORED), chosen))

    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count the pixels of each class in each image."""
        assert masks is not None
        pixels = np.zeros((len(masks), IGNORED), np.int64)
        for mask, counts in zip(masks, pixels, strict=True):
            counts[:] = np.bincount(mask.ravel(), minlength=IGNORED + 1)[:IGNORED]
        pixels = pixels[values]
        images, classes = np.nonzero(pixels)
        return images, classes, pixels[images, classes]

    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return one stratum (N,), because an image shows several classes."""
        return np.zeros(len(values), np.int64)

    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a head with K logits at every pixel."""
        return DenseHead(self, readout[0], spec.num_outputs, readout[1], image_size)

    def loss(self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
        """Return the (B,) mean cross-entropy of pixels with a class; logits (B, K, H, W), classes (B, H, W)."""
        losses = F.cross_entropy(
            outputs, labels, weight=weights, label_smoothing=smoothing, ignore_index=NO_LABEL, reduction="none"
        )
        return losses.sum((1, 2)) / (labels != NO_LABEL).sum((1, 2)).clamp(min=1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return (B, K, H, W) probabilities that sum to 1 at every pixel."""
        return torch.softmax(outputs, dim=1)

    def outputs_to_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return (B, K, K) int64 pixel counts; outputs (B, K, H, W), labels (B, H, W), -1 = no class."""
        size, predicted = outputs.shape[1], self.decide(outputs)
        cells = (labels * size + predicted).masked_fill(labels < 0, size * size).flatten(1)  # (B, H * W)
        counts = torch.zeros(len(cells), size * size + 1, dtype=torch.int64)
        counts.scatter_add_(1, cells, torch.ones_like(cells))
        return counts[:, :-1].view(-1, size, size)

    def decide(self, numbers: Array) -> Array:
        """Return the most probable class (B, H, W)."""
        return numbers.argmax(1)

    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the share of correct pixels (n,), from (n, K, K) pixel counts."""
        right = np.trace(numbers, axis1=1, axis2=2)
        return right / np.maximum(numbers.sum((1, 2)), 1)

    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Return `mean_iou` and `pixel_accuracy` of the pixels of all images, from (n, K, K) pixel counts.

        `mean_iou` is the mean over the classes that occur or are predicted.
        """
        hits = np.diagonal(numbers, axis1=1, axis2=2)
        sums = np.concatenate([hits, numbers.sum(2), numbers.sum(1)], axis=1)
        return {
            "mean_iou": Measure(sums, _mean_iou, limits=SHARE),
            "pixel_accuracy": Measure(sums, _pixel_accuracy, limits=SHARE),
        }

    def instance_columns(
        self, numbers: np.ndarray, values: np.ndarray, class_names: Sequence[str]
    ) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """Return the pixels of each class by truth, by prediction and by both, from (n, K, K) pixel counts."""
        right = np.diagonal(numbers, axis1=1, axis2=2)
        return {"true_pixels": numbers.sum(2), "said_pixels": numbers.sum(1), "right_pixels": right}

    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """Return {}: a mask is shown as a picture."""
        return {}

    def prediction(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """Return `probability`, the mean probability of the pixels' classes, and `shares` of the pixels by class."""
        shares = np.bincount(self.decide(numbers[None]).ravel(), minlength=len(numbers)) / numbers[0].size
        return {"probability": rounded(numbers.max(0).mean()), "shares": by_class(class_names, shares)}


def _mean_iou(sums: np.ndarray) -> np.ndarray:
    hits, occur, predicted = np.split(sums, 3, axis=-1)
    return mean_of_defined(divide(hits, occur + predicted - hits))


def _pixel_accuracy(sums: np.ndarray) -> np.ndarray:
    hits, occur, _ = np.split(sums, 3, axis=-1)
    return divide(hits.sum(-1), occur.sum(-1))

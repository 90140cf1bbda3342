"""The interface of a kind of label, which every file in `vision_mtl/tasks` implements, and the registry of kinds.

A kind is one object without state. It parses labels, builds the head that predicts them, and defines the loss, the
metrics and how a prediction is shown. No other package compares a kind's name with a string.
"""
# N images, B of a batch, n scored, K classes, D feature width, H W pixels

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from vision_mtl.core.registry import Registry

if TYPE_CHECKING:  # options are listed and checked without importing NumPy and PyTorch
    import numpy as np
    from torch import Tensor, nn

    from vision_mtl.core.sums import Measure

DIGITS = 6  # decimals of a probability in a file: float32 has no more
Array = TypeVar("Array", "np.ndarray", "Tensor")
ProbePath: TypeAlias = "Iterator[tuple[float, np.ndarray, np.ndarray, bool]]"  # C, weight (D, K), bias (K,), converged


@dataclass(frozen=True)
class TaskHeadSpec:
    """The specification of a task's head; `offset` and `scale` are the mean and standard deviation of number labels."""

    kind: str
    num_outputs: int
    offset: float = 0.0
    scale: float = 1.0

    @property
    def is_dense(self) -> bool:
        """True if every pixel has a prediction, which needs the decoder."""
        return label_kind(self.kind).is_dense


class LabelKind(ABC):
    """One kind of label.

    The labels of N images are `values`, an array with one row per image (for dense kinds, indices of masks). `outputs`
    are a head's outputs, `numbers` what a user sees: (B, K) probabilities or (B, 1) float64 values in the labels' unit,
    and for dense kinds (B, K, H, W) probabilities. In the scores of a dense kind, `outputs` and `numbers` are the
    result of `outputs_to_score`.
    """

    meaning: ClassVar[str]  # meaning of a label, in a few words
    form: ClassVar[str]  # shape and range of an exported prediction
    headline: ClassVar[str]  # the metric that tables show
    image_value: ClassVar[str]  # description of `image_values`
    image_metric: ClassVar[str] = "accuracy"  # the metric that is the mean of `image_values`, without its sign
    missing: ClassVar[float] = -1  # the value for no label
    has_classes: ClassVar[bool] = True  # False: labels are numbers, and image values are minus the absolute error
    one_class: ClassVar[bool] = False  # each image has exactly one class, so there is a confusion matrix
    is_dense: ClassVar[bool] = False  # a label is a mask with a class for each pixel, and the head uses the decoder
    has_pseudo_labels: ClassVar[bool] = False  # True: `pseudo_labels` is implemented
    has_probe: ClassVar[bool] = True  # True: `probe_path`, `neighbour_votes` and `constant` are implemented

    @property
    def classifies_images(self) -> bool:
        """True if a prediction is one or several classes of the whole image."""
        return self.has_classes and not self.is_dense

    # labels

    def parse(
        self, name: str, texts: Sequence[str | None], identities: Sequence[str], separator: str
    ) -> tuple[list[str], np.ndarray]:
        """Parse label texts of N items (None: no label) into class names and values; dense kinds read mask files.

        `separator` is the text between the classes of a label, for kinds with several. Raises `UserError` with the task
        `name` and the file whose label is invalid.
        """
        raise NotImplementedError

    def warnings(self, name: str, values: np.ndarray, identities: Sequence[str]) -> list[str]:
        """Return warnings about the parsed labels of task `name`, for values that may not be meant."""
        return []

    def num_outputs(self, class_names: Sequence[str]) -> int:
        """Return K, the number of outputs of the head."""
        return len(class_names)

    @abstractmethod
    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Return the labels of B images, numbers standardised, in the form that the loss needs, on the CPU."""

    @abstractmethod
    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (m,) int64 images, (m,) int64 classes and (m,) counts of N labelled images, sorted by image."""

    @abstractmethod
    def strata(self, values: np.ndarray) -> np.ndarray:
        """Return (N,) int64 strata of labelled images, from which a label fraction draws equal shares."""

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        """Return (offset, scale) of these training labels, by which numbers are standardised; (0, 1) for classes."""
        return 0.0, 1.0

    # head and loss

    @abstractmethod
    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """Return a new head on the last feature map, or for a dense kind on the decoder's readout (width, stride).

        Its `forward` returns outputs; its `probabilities(outputs)` returns numbers, calibrated by the buffer
        `temperature` if the kind classifies images. A head of numbers outputs standardised ones and has `set_unit`
        (`models.decoder.ValueTaskHead`).
        """

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
        """Return the (B,) loss of each image; `labels` from `gather`, class `weights` (K,), `smoothing` in [0, 1)."""

    def pseudo_labels(self, outputs: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Return the decisions in the form of `gather`, and which of them have a probability of `threshold` or more.

        The latter are (B,) bool, or (B, K) where each class is decided by itself. Probabilities are not calibrated.
        Only if `has_pseudo_labels`.
        """
        raise NotImplementedError

    def pseudo_loss(
        self, outputs: Tensor, labels: Tensor, confident: Tensor, *, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """Return the (B,) loss of each image against `pseudo_labels`; those that are not `confident` add 0."""
        return self.loss(outputs, labels, weights=weights, smoothing=smoothing) * confident

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Convert outputs to numbers, without calibration; float64 outputs give float64 probabilities."""

    # scores

    def outputs_to_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the form of a batch's outputs that is kept until all batches are scored."""
        return outputs

    @abstractmethod
    def decide(self, numbers: Array) -> Array:
        """Convert numbers to predictions in the form of `values`."""

    @abstractmethod
    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the (n,) float64 score of each image's prediction; higher is better."""

    @abstractmethod
    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Return the metrics of n images by name, without those that are undefined for these labels."""

    def goodness(self, image_values: np.ndarray, values: np.ndarray) -> float:
        """Return the validation score that selects the best weights, comparable between tasks: 0 useless, 1 perfect."""
        return float(image_values.mean())

    def instance_columns(
        self, numbers: np.ndarray, values: np.ndarray, class_names: Sequence[str]
    ) -> Mapping[str, Sequence[Any] | np.ndarray]:
        """Return columns of `test_instances.parquet` from which `measures` can be computed again: name -> n entries.

        Their names and types are in `evaluation/instance_scores.py`; a matrix (n, K) is a column of lists.
        """
        return {}

    # linear probe and neighbours, on frozen features; only if `has_probe`

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Yield linear fits to features (n, D), one for each strength C."""
        raise NotImplementedError

    def validation_score(self, numbers: np.ndarray, values: np.ndarray) -> float:
        """Return the score that selects the probe's strength, layer and neighbours; higher is better."""
        return float(self.image_values(numbers, values).mean())

    def neighbour_votes(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return (n, K): the vote of each image as a neighbour."""
        return values

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Return the numbers (1, K) of the best prediction that ignores the image."""
        raise NotImplementedError

    # predictions in words

    @abstractmethod
    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """Return one label or decision as text: `class`, `classes` or `value`; {} for a mask."""

    @abstractmethod
    def prediction(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """Return one image's prediction as in `predictions.json`, with `probability` if the kind has classes."""


LABEL_KINDS: Registry[type[LabelKind]] = Registry("kind of label", "vision_mtl.tasks")


@lru_cache
def label_kind(name: str) -> LabelKind:
    """Return the kind called `name`. Raises `UserError` for an unknown name, with the nearest."""
    return LABEL_KINDS.get(name)()


def probed_kinds() -> list[str]:
    """Return the names of the kinds that have a linear probe."""
    return [name for name in LABEL_KINDS.names() if label_kind(name).has_probe]


def by_class(class_names: Sequence[str], numbers: np.ndarray) -> Mapping[str, float]:
    """Return class name -> number (K,), rounded."""
    return {name: rounded(value) for name, value in zip(class_names, numbers, strict=True)}


def rounded(value: float) -> float:
    """Return the number rounded as in files."""
    return round(float(value), DIGITS)

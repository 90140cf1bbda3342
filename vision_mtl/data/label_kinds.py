"""What a kind of label is: the contract that every file in `vision_mtl/tasks` fulfils, and their registry.

A kind is one object without state. It reads labels from text, builds the head that predicts them, and defines its
loss, its metrics and how a prediction is shown. No other package compares a kind's name with a string.
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
    from vision_mtl.data.options import Task

DIGITS = 6  # decimals of a written probability: float32 holds no more
Array = TypeVar("Array", "np.ndarray", "Tensor")
ProbePath: TypeAlias = "Iterator[tuple[float, np.ndarray, np.ndarray, bool]]"  # C, weight (D, K), bias (K,), converged


@dataclass(frozen=True)
class TaskHeadSpec:
    """What a task's head must predict. `offset` and `scale` are the mean and standard deviation of number labels."""

    kind: str
    num_outputs: int
    offset: float = 0.0
    scale: float = 1.0

    @property
    def is_dense(self) -> bool:
        """Whether every pixel has a prediction, which needs the decoder."""
        return label_kind(self.kind).is_dense


class LabelKind(ABC):
    """One kind of label.

    Labels of N images are `values`, an array with a row for each image (and, for dense kinds, masks that they point
    to). `outputs` are what a head gives, `numbers` what a user sees: (B, K) probabilities or (B, 1) values, and for
    dense kinds (B, K, H, W) probabilities. When a dense kind is scored, `outputs` and `numbers` are what
    `outputs_to_score` keeps.
    """

    meaning: ClassVar[str]  # of a label, in a few words
    form: ClassVar[str]  # of an exported prediction
    headline: ClassVar[str]  # the metric that tables show
    image_value: ClassVar[str]  # what `image_values` are, in words
    image_metric: ClassVar[str] = "accuracy"  # the metric that is their mean, without its sign
    missing: ClassVar[float] = -1  # the value that means no label
    has_classes: ClassVar[bool] = True  # False: labels are numbers, and image values are minus the absolute error
    one_class: ClassVar[bool] = False  # each image has exactly one class, so there is a confusion matrix
    is_dense: ClassVar[bool] = False  # a label is a mask with a class for each pixel, and the head reads the decoder
    has_probe: ClassVar[bool] = True  # whether `probe_path`, `neighbour_votes` and `constant` are there

    @property
    def classifies_images(self) -> bool:
        """Whether a prediction is about classes of the whole image."""
        return self.has_classes and not self.is_dense

    # labels

    def parse(
        self, name: str, task: Task, texts: Sequence[str | None], identities: Sequence[str]
    ) -> tuple[list[str], np.ndarray]:
        """Label texts of N items (None: no label) -> class names and values; dense kinds read mask files instead.

        Raises `UserError` naming the task `name` and the file whose label cannot be read.
        """
        raise NotImplementedError

    def num_outputs(self, class_names: Sequence[str]) -> int:
        """The number K that the head is built with."""
        return len(class_names)

    @abstractmethod
    def gather(self, values: np.ndarray, masks: np.ndarray | None) -> Tensor:
        """Labels of B images as the loss takes them, on the CPU."""

    @abstractmethod
    def occurrences(self, values: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of N labelled images: (m,) int64 image, (m,) int64 class and (m,) how often it shows it, ordered by image."""

    @abstractmethod
    def strata(self, values: np.ndarray) -> np.ndarray:
        """(N,) int64: the groups of labelled images that a label fraction draws from evenly."""

    def statistics(self, values: np.ndarray) -> tuple[float, float]:
        """(offset, scale) of a head for these training labels."""
        return 0.0, 1.0

    # head and loss

    @abstractmethod
    def head(
        self, spec: TaskHeadSpec, num_features: int, readout: tuple[int, int], image_size: tuple[int, int]
    ) -> nn.Module:
        """A new head on the last map, or for a dense kind on the decoder's readout of (width, stride).

        Its `forward` gives outputs, its `probabilities(outputs)` numbers, calibrated by the buffer `temperature` if the
        kind classifies images.
        """

    @abstractmethod
    def loss(
        self, outputs: Tensor, labels: Tensor, *, weights: Tensor | None, smoothing: float, scale: float
    ) -> Tensor:
        """(B,) loss of each image; `labels` as from `gather`, class `weights` (K,), label `smoothing` in [0, 1)."""

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs -> numbers, without calibration. float64 outputs give float64 probabilities."""

    # scores

    def outputs_to_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What is kept of a batch's outputs until all are scored."""
        return outputs

    @abstractmethod
    def decide(self, numbers: Array) -> Array:
        """Numbers -> the prediction in the form of `values`."""

    @abstractmethod
    def image_values(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(n,) float64: how good each image's prediction is; higher is better."""

    @abstractmethod
    def measures(self, numbers: np.ndarray, values: np.ndarray) -> dict[str, Measure]:
        """Every metric of n images, by name; one that these labels leave undefined is absent."""

    def goodness(self, image_values: np.ndarray, values: np.ndarray) -> float:
        """What weights are chosen by, comparable between tasks: about 0 is useless, 1 perfect."""
        return float(image_values.mean())

    # linear probe and neighbours, on frozen features; only if `has_probe`

    def probe_path(self, x: np.ndarray, y: np.ndarray, num_outputs: int, strengths: Sequence[float]) -> ProbePath:
        """Linear fits to features (n, D), one for each strength C."""
        raise NotImplementedError

    def validation_score(self, numbers: np.ndarray, values: np.ndarray) -> float:
        """What the probe's strength, layer and neighbours are chosen by; higher is better."""
        return float(self.image_values(numbers, values).mean())

    def neighbour_votes(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """(n, K): what each image votes for as a neighbour."""
        return values

    def constant(self, values: np.ndarray, num_outputs: int) -> np.ndarray:
        """Numbers (1, K) of the best guess without looking at the image."""
        raise NotImplementedError

    # predictions in words

    @abstractmethod
    def describe(self, value: Any, class_names: Sequence[str]) -> dict[str, Any]:
        """One label or decision in words: `class`, `classes` or `value`; {} for a mask."""

    @abstractmethod
    def answer(self, numbers: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
        """One image's numbers as `predictions.json` shows them; with `probability` if the kind has classes."""


LABEL_KINDS: Registry[type[LabelKind]] = Registry("kind of label", "vision_mtl.tasks")


@lru_cache
def label_kind(name: str) -> LabelKind:
    """The kind called `name`; raises `UserError` naming the nearest if there is none."""
    return LABEL_KINDS.get(name)()


def probed_kinds() -> list[str]:
    """The names of the kinds that have a linear probe."""
    return [name for name in LABEL_KINDS.names() if label_kind(name).has_probe]


def by_class(class_names: Sequence[str], numbers: np.ndarray) -> Mapping[str, float]:
    """Class name -> number (K,), rounded."""
    return {name: rounded(value) for name, value in zip(class_names, numbers, strict=True)}


def rounded(value: float) -> float:
    """The number as it is written to files."""
    return round(float(value), DIGITS)

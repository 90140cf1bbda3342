"""A task's labels for all images of the pool, for every kind of label.

Each kind has a value for "no label" (-1, a row of -1, NaN), because most images have labels for only some tasks.
"""
# N images, B of a batch, M masks, H W pixels

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task

IGNORED = 255  # pixels without a class in a stored mask; the loss gets -1
NO_CLASS = "none"  # multi-label text of an image that shows none of the classes, which is a label


@dataclass(frozen=True)
class Target:
    """One task's labels: one row of `values` per image, in the form that its kind defines (`vision_mtl/tasks`).

    `unit` is the (offset, scale) that number labels are standardised by for the loss; heads are built with the same.
    `details` are added to the task's entry in the summary of the data.
    """

    kind: str
    class_names: list[str]  # [] for regression
    values: np.ndarray
    masks: np.ndarray | None = None  # dense: (M, H, W) uint8 classes at the pool's image size, `IGNORED` = none
    unit: tuple[float, float] = (0.0, 1.0)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool: images with a label."""
        missing = label_kind(self.kind).missing
        blank = np.isnan(self.values) if math.isnan(missing) else self.values == missing
        return ~(blank if blank.ndim == 1 else blank.any(1))

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the task's head, for example the number of classes."""
        return label_kind(self.kind).num_outputs(self.class_names)

    def gather(self, indices: Tensor) -> Tensor:
        """Return the labels of the images `indices` (B,) in the form that the loss needs; -1 or NaN for no label.

        Numbers are standardised before they become float32, which cannot tell 1700000000 from 1700000001.
        """
        kind, values = label_kind(self.kind), self.values[indices.numpy()]
        if not kind.has_classes:
            values = (values.astype(np.float64) - self.unit[0]) / self.unit[1]
        return kind.gather(values, self.masks)

    def occurrences(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ((n,) image, (n,) class), both int64, sorted by image: which image shows which class."""
        rows = np.flatnonzero(self.labelled)
        images, classes, _ = label_kind(self.kind).occurrences(self.values[rows], self.masks)
        return rows[images], classes

    def spread(self, rows: np.ndarray, count: int) -> Target:
        """Return the labels of n items as labels of `count` images: item i is image `rows[i]`; others have none."""
        values = np.full((count, *self.values.shape[1:]), label_kind(self.kind).missing).astype(self.values.dtype)
        values[rows[self.labelled]] = self.values[self.labelled]
        return replace(self, values=values)

    def in_unit_of(self, rows: np.ndarray) -> Target:
        """Return the same labels with the unit of the training images `rows` (N,) bool: mean, standard deviation."""
        return replace(self, unit=label_kind(self.kind).statistics(self.values[self.labelled & rows]))

    def keep(self, rows: np.ndarray) -> Target:
        """Return the labels of the images `rows` (N,) bool only; the others have none."""
        values = self.values.copy()
        values[~rows] = label_kind(self.kind).missing
        return replace(self, values=values)


def mask_tensor(masks: np.ndarray) -> Tensor:
    """Convert stored masks (B, H, W) uint8 to int64 with -1 for ignored pixels."""
    found = torch.from_numpy(masks).to(torch.int64)
    return found.masked_fill_(found == IGNORED, -1)


def parse_labels(name: str, task: Task, texts: Sequence[str | None], identities: Sequence[str]) -> Target:
    """Parse the items' label texts (None: no label) into the target of a task that is not dense, one row per item.

    Raises `UserError` with the task and the file whose label is invalid.
    """
    class_names, values = label_kind(task.kind).parse(name, texts, identities, task.separator)
    return Target(task.kind, class_names, values)


def class_names_of(texts: Sequence[str]) -> list[str]:
    """Return the distinct classes, sorted by number if all are numbers, else alphabetically."""
    found = set(texts)
    if all(is_number(text) for text in found):
        return sorted(found, key=lambda text: (float(text), text))
    return sorted(found)


def is_number(text: str) -> bool:
    """Return True if the text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

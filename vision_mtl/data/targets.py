"""A task's labels over the pool, of any kind.

Every kind has one way to say "no label" (-1, a row of -1, NaN), because most images carry a label for some tasks only.
"""
# N images, B of a batch, M masks, H W pixels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task

IGNORED = 255  # pixels of a stored mask that carry no class; they become -1
NO_CLASS = "none"  # a multi-label text for an image that was looked at and shows none of the classes


@dataclass(frozen=True)
class Target:
    """One task's labels, a row of `values` for each image, as the kind's file in `vision_mtl/tasks` says."""

    kind: str
    class_names: list[str]  # [] for numbers
    values: np.ndarray
    masks: np.ndarray | None = None  # dense: (M, H, W) uint8 classes at the pool's image size, `IGNORED` = none

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool."""
        missing = label_kind(self.kind).missing
        blank = np.isnan(self.values) if math.isnan(missing) else self.values == missing
        return ~(blank if blank.ndim == 1 else blank.any(1))

    @property
    def num_outputs(self) -> int:
        """The number that the task's head is built with, for example of classes."""
        return label_kind(self.kind).num_outputs(self.class_names)

    def gather(self, indices: Tensor) -> Tensor:
        """(B,) -> labels as the loss takes them; -1, or NaN, where there is no label."""
        return label_kind(self.kind).gather(self.values[indices.numpy()], self.masks)

    def occurrences(self) -> tuple[np.ndarray, np.ndarray]:
        """Which image shows which class: ((n,) image, (n,) class), both int64, in order of the image."""
        rows = np.flatnonzero(self.labelled)
        images, classes, _ = label_kind(self.kind).occurrences(self.values[rows], self.masks)
        return rows[images], classes

    def spread(self, rows: np.ndarray, count: int) -> Target:
        """The labels of n items as labels of `count` images: item i is image `rows[i]`, of (n,); others have none."""
        values = np.full((count, *self.values.shape[1:]), label_kind(self.kind).missing).astype(self.values.dtype)
        values[rows[self.labelled]] = self.values[self.labelled]
        return replace(self, values=values)

    def keep(self, rows: np.ndarray) -> Target:
        """The labels of the images `rows` (N,) bool alone; the others have none."""
        values = self.values.copy()
        values[~rows] = label_kind(self.kind).missing
        return replace(self, values=values)


def mask_tensor(masks: np.ndarray) -> Tensor:
    """Stored masks (B, H, W) uint8 -> int64, ignored pixels -1."""
    found = torch.from_numpy(masks).to(torch.int64)
    return found.masked_fill_(found == IGNORED, -1)


def parse_labels(name: str, task: Task, texts: Sequence[str | None], identities: Sequence[str]) -> Target:
    """The items' label texts (None: no label) -> the target of a task that is not dense, a row for each item.

    Raises `UserError` naming the task and the file whose label cannot be read.
    """
    class_names, values = label_kind(task.kind).parse(name, task, texts, identities)
    return Target(task.kind, class_names, values)


def class_names_of(texts: Sequence[str]) -> list[str]:
    """The classes in order: by number where all are numbers, else alphabetically."""
    found = set(texts)
    if all(is_number(text) for text in found):
        return sorted(found, key=lambda text: (float(text), text))
    return sorted(found)


def is_number(text: str) -> bool:
    """Whether the text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

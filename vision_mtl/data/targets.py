"""A task's labels over the pool: one class, any number of classes, a number, or a class for each pixel.

Every kind has one way to say "no label" (-1, a row of -1, NaN), because most images carry a label for some tasks only.
"""
# N images, B of a batch, K classes, M masks, H W pixels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Task

IGNORED = 255  # pixels of a stored mask that carry no class; they become -1
NO_CLASS = "none"  # a multi-label text for an image that was looked at and shows none of the classes


@dataclass(frozen=True)
class Target:
    """One task's labels, a row of `values` for each image.

    `values`: single_label (N,) int64, -1 none; multi_label (N, K) int8, a row of -1 none; regression (N,) float32, NaN
    none; dense (N,) int64, the image's row of `masks`, -1 none.
    """

    kind: str
    class_names: list[str]  # [] for regression
    values: np.ndarray
    masks: np.ndarray | None = None  # dense: (M, H, W) uint8 classes at the pool's image size, `IGNORED` = no class

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool."""
        if self.kind == "regression":
            return ~np.isnan(self.values)
        if self.kind == "multi_label":
            return (self.values >= 0).all(1)
        return self.values >= 0

    @property
    def num_outputs(self) -> int:
        """Numbers that a head gives an image (dense: a pixel): the classes, or 1 for regression."""
        return 1 if self.kind == "regression" else len(self.class_names)

    def gather(self, indices: Tensor) -> Tensor:
        """(B,) -> (B,) int64 | (B, K) float32 | (B,) float32 | (B, H, W) int64; -1, or NaN, where there is no label."""
        values = self.values[indices.numpy()]
        if self.kind == "dense":
            chosen = self.masks[values]  # -1 takes the last one, which is then hidden
            return mask_tensor(np.where((values < 0)[:, None, None], np.uint8(IGNORED), chosen))
        return torch.from_numpy(values.astype(np.float32) if self.kind == "multi_label" else values)

    def occurrences(self) -> tuple[np.ndarray, np.ndarray]:
        """Which image shows which class: ((n,) image, (n,) class), both int64, in order of the image.

        In regression every number counts as of one class, 0.
        """
        rows = np.flatnonzero(self.labelled)
        if self.kind == "single_label":
            return rows, self.values[rows]
        if self.kind == "multi_label":
            return np.nonzero(self.values > 0)
        if self.kind == "regression":
            return rows, np.zeros_like(rows)
        shown = np.stack([np.bincount(mask.ravel(), minlength=IGNORED + 1)[:IGNORED] > 0 for mask in self.masks])
        at, classes = np.nonzero(shown[self.values[rows]])
        return rows[at], classes

    def spread(self, rows: np.ndarray, count: int) -> Target:
        """The labels of n items as labels of `count` images, item i being image `rows[i]`; the others have none."""
        values = np.full((count, *self.values.shape[1:]), np.nan if self.kind == "regression" else -1)
        values = values.astype(self.values.dtype)
        values[rows[self.labelled]] = self.values[self.labelled]
        return replace(self, values=values)

    def keep(self, rows: np.ndarray) -> Target:
        """The labels of the images `rows` (N,) bool alone; the others have none."""
        values = self.values.copy()
        values[~rows] = np.nan if self.kind == "regression" else -1
        return replace(self, values=values)


def mask_tensor(masks: np.ndarray) -> Tensor:
    """Stored masks (B, H, W) uint8 -> int64, ignored pixels -1."""
    found = torch.from_numpy(masks).to(torch.int64)
    return found.masked_fill_(found == IGNORED, -1)


def parse_labels(name: str, task: Task, texts: Sequence[str | None], identities: Sequence[str]) -> Target:
    """The items' label texts (None: no label) -> the target of a task that is not dense, a row for each item.

    Raises `UserError` naming the task, and for a number that is none the file as well.
    """
    if task.kind == "regression":
        pairs = zip(texts, identities, strict=True)
        values = [math.nan if text is None else _number(name, text, identity) for text, identity in pairs]
        return Target(task.kind, [], np.array(values, np.float32))
    sets = [
        None if text is None else _classes(name, task, text, identity)
        for text, identity in zip(texts, identities, strict=True)
    ]
    class_names = class_names_of([found for parts in sets if parts is not None for found in parts])
    numbers = {found: k for k, found in enumerate(class_names)}
    if task.kind == "single_label":
        classes = [-1 if parts is None else numbers[parts[0]] for parts in sets]
        return Target(task.kind, class_names, np.array(classes, np.int64))
    if not class_names and any(parts is not None for parts in sets):
        raise UserError(f"task {name!r}: every label is {NO_CLASS!r}; there is no class to learn.")
    values = np.full((len(sets), len(class_names)), -1, np.int8)
    for row, parts in enumerate(sets):
        if parts is not None:
            values[row] = 0
            values[row, [numbers[part] for part in parts]] = 1
    return Target(task.kind, class_names, values)


def class_names_of(texts: Sequence[str]) -> list[str]:
    """The classes in order: by number where all are numbers, else alphabetically."""
    found = set(texts)
    if all(_is_number(text) for text in found):
        return sorted(found, key=lambda text: (float(text), text))
    return sorted(found)


def _classes(name: str, task: Task, text: str, identity: str) -> list[str] | None:
    """The classes that a label names: the whole text, or for multi_label its parts; None if all of them are blank."""
    if task.kind == "single_label":
        return [text]
    if text == NO_CLASS:
        return []
    parts = [part.strip() for part in text.split(task.separator) if part.strip()]
    if NO_CLASS in parts:
        raise UserError(f"task {name!r}: the label of {identity!r} must be {NO_CLASS!r} or classes; found {text!r}.")
    return parts or None


def _number(name: str, text: str, identity: str) -> float:
    if not _is_number(text):
        raise UserError(
            f"task {name!r}: the label of {identity!r} must be a finite number (kind regression), or blank for none; "
            f"found {text!r}."
        )
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

"""Finds tasks whose labels are all the same: any model would reach a perfect score on them."""
# N images, n (image, class) pairs

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vision_mtl.data.findings import Finding
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.skipped import some
from vision_mtl.data.source import Item
from vision_mtl.data.targets import Target

ADVICE = "Give images with other labels, or leave the task out."


def one_value(task: str, target: Target, rows: np.ndarray, advice: str = ADVICE) -> Finding | None:
    """Return an error if all labels of the images `rows` (N,) bool are equal, or all pixels of their masks; else None.

    Its text is the same for all images and for training images, so that it can be told once.
    """
    chosen = np.flatnonzero(target.labelled & rows)
    if not len(chosen):
        return None
    kind = label_kind(target.kind)
    if kind.is_dense:
        images, classes = target.occurrences()
        found = np.unique(classes[rows[images]])
        if len(found) > 1:
            return None
        said = f"every pixel with a class in the training masks is {target.class_names[int(found[0])]!r}"
    else:
        values = target.values[chosen]
        if (values != values[0]).any():
            return None
        (value,) = kind.describe(values[0], target.class_names).values()
        shown = " ".join(value) or "none" if isinstance(value, list) else value
        said = f"every training label is {shown!r}"
    return Finding(
        "error", f"task {task!r}: {said}. A single value is nothing to learn: any model predicts it.", advice
    )


def folder_advice(task: str, source: str, items: Sequence[Item]) -> str:
    """Return what to do about one value: if one folder holds all class folders of a `folder/` source, name it."""
    kind, _, path = source.partition("/")
    folders = [PurePath(item.identity).parts[:-1] for item in items if item.beside is None]
    if kind != "folder" or not folders or any(len(parts) < 2 for parts in folders):
        return ADVICE
    tops, classes = {parts[0] for parts in folders}, sorted({parts[1] for parts in folders})
    if len(tops) > 1 or len(classes) < 2:
        return ADVICE
    (top,) = tops
    return (
        f"All images lie in the one folder {top!r}. If its folders {some(classes)} are the classes, write "
        f"--tasks.{task}.source {kind}/{path.rstrip('/')}/{top}"
    )

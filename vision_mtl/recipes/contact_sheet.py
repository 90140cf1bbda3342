"""The contact sheet of `--stage data`: a few training images of each class of a task, and of each unlabelled source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from vision_mtl.core.text import short_sources
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import IGNORED, Target
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.sheets import COLUMNS, Block, Section, sheet_figure
from vision_mtl.viz.style import COLOURS

MAX_TASKS = 12  # shown; a table of attributes may have hundreds


def contact_sheet(pool: Pool, tasks: dict[str, str], num_pictures: int) -> Figure:
    """Return the sheet with up to `num_pictures` of each task and of each source that is no task's.

    `tasks` maps the tasks to their sources.
    """
    sections = [_of_task(pool, task, num_pictures) for task in list(pool.targets)[:MAX_TASKS]]
    for source, name in short_sources(pool.sources).items():
        if source not in tasks.values():
            indices = spread_evenly(pool.indices("train", source=source), num_pictures)
            blocks = [Block(_pictures(pool, part)) for part in indices.split(COLUMNS)]
            sections.append(Section(f"{name}, without labels", blocks))
    return sheet_figure(sections)


def _of_task(pool: Pool, task: str, num_pictures: int) -> Section:
    """Return the images of a task, a block for each class; of numbers, from the smallest to the largest."""
    target, train = pool.targets[task], pool.indices("train", task=task)
    if not label_kind(target.kind).has_classes:
        ordered = train[np.argsort(target.values[train.numpy()], kind="stable")]
        shown = spread_evenly(ordered, num_pictures)
        blocks = [Block(_pictures(pool, shown[i : i + 1]), f"{target.values[n]:g}") for i, n in enumerate(shown)]
        return Section(f"{task}, from the smallest to the largest", blocks)
    if label_kind(target.kind).is_dense:
        shown = spread_evenly(train, num_pictures // 2)
        blocks = [Block(np.concatenate([_in_colour(_pictures(pool, i)), _mask(target, i)])) for i in shown.split(1)]
        return Section(f"{task}, images and masks", blocks)
    names = target.class_names
    classes = spread_evenly(torch.arange(len(names)), num_pictures).tolist()
    found = _of_classes(pool, task, classes, num_pictures // len(names))
    blocks = [Block(_pictures(pool, rows), names[k]) for k, rows in zip(classes, found, strict=True)]
    left_out = f", {len(classes)} of {len(names)} classes" if len(classes) < len(names) else ""
    return Section(f"{task}{left_out}", blocks)


def _of_classes(pool: Pool, task: str, classes: list[int], count: int) -> Iterator[Tensor]:
    """Yield the numbers of up to `count` training images of each class, at least one of a class that has any."""
    rows, shown = pool.targets[task].occurrences()
    is_train = pool.split[rows] == 0
    fitting = max(n for n in range(1, COLUMNS + 1) if COLUMNS % n == 0 and n <= max(count, 1))  # fill the rows
    for k in classes:
        yield spread_evenly(torch.from_numpy(rows[is_train & (shown == k)]), fitting)


def _pictures(pool: Pool, indices: Tensor) -> np.ndarray:
    """Return (n, H, W, C) in [0, 1]."""
    return shown_bands(pool.gather(indices).permute(0, 2, 3, 1).numpy(), pool.rgb_bands)


def _in_colour(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, H, W, 1 or 3) with three channels."""
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def _mask(target: Target, image: Tensor) -> np.ndarray:
    """Return (1, H, W, 3): the mask of one `image` (1,) in a colour for each class, white where there is none."""
    assert target.masks is not None
    classes = target.masks[target.values[image.numpy()]]  # (1, H, W)
    colours = np.array([to_rgb(colour) for colour in COLOURS], np.float32)[classes % len(COLOURS)]
    return np.where((classes == IGNORED)[..., None], np.float32(1), colours)

"""The tasks of a run, and the training and validation images whose labels it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.source import SPLITS
from vision_mtl.evaluation.fractions import LabelBudget, label_budget

FRACTIONS = "fractions.json"


@dataclass(frozen=True)
class LabelledTasks:
    """The tasks of a run, and the training and validation images whose labels it may use.

    `train` maps a task to indices (n,) int64 in the pool. All other labels of training and validation images are
    removed from the pool: an image that is drawn for one task must not add to another task's share of labels.
    """

    pool: Pool
    tasks: Mapping[str, Task]
    train: Mapping[str, Tensor]
    records: Mapping[str, dict[str, Any]]  # task -> requested and real fraction, numbers of labels

    def subset(self, names: Sequence[str]) -> LabelledTasks:
        """Return the same with the tasks `names` only."""
        return LabelledTasks(
            self.pool,
            {name: self.tasks[name] for name in names},
            {name: self.train[name] for name in names},
            {name: self.records[name] for name in names},
        )

    @property
    def train_indices(self) -> Tensor:
        """The indices (n,) of all images with a label to train on, each once."""
        return torch.cat(list(self.train.values())).unique()

    @property
    def train_rows(self) -> np.ndarray:
        """The same as a mask (N,) bool over the pool, for the statistics of labels."""
        rows = np.zeros(len(self.pool), bool)
        for indices in self.train.values():
            rows[indices.numpy()] = True
        return rows


def open_labels(config: RunConfig, run: Run, pool: Pool, fraction: float) -> LabelledTasks:
    """Return the tasks with a stratified share of their labels, and list the images in `fractions.json`.

    Raises `UserError` without a task.
    """
    tasks = config.tasks
    if not tasks:
        raise UserError(f"{config.stage} needs a labelled task: give --tasks.NAME.source SOURCE.")
    train, records, kept, targets = {}, {}, {}, dict(pool.targets)
    for name in tasks:
        budget = draw_budget(config, pool, name, fraction)
        for text in budget.warnings():
            run.warn(f"task {name}: {text}")
        train[name], validation = budget_indices(pool, name, budget)
        usable = pool.split == SPLITS.index("test")  # test labels stay
        usable[torch.cat([train[name], validation]).numpy()] = True
        chosen = np.zeros(len(pool), bool)
        chosen[train[name].numpy()] = True
        targets[name] = pool.targets[name].keep(usable).in_unit_of(chosen)
        records[name] = budget.record()
        kept[name] = kept_images(pool, name, budget)
    if run.is_main:
        atomic_write_json(run.folder / FRACTIONS, {f"{fraction:g}": kept})
    return LabelledTasks(replace(pool, targets=targets), tasks, train, records)


def draw_budget(config: RunConfig, pool: Pool, name: str, fraction: float) -> LabelBudget:
    """Return the labels of task `name` that a run may use; rows count its labelled images of each split."""
    train, validation = (_named_strata(pool, name, split) for split in ("train", "val"))
    use_all = config.data.validation_labels == "all"
    return label_budget(train, validation, fraction, config.seed, all_validation=use_all)


def _named_strata(pool: Pool, name: str, split: str) -> tuple[list[str], np.ndarray]:
    indices, target = pool.indices(split, task=name), pool.targets[name]
    return pool.draw_names(indices), label_kind(target.kind).strata(target.values[indices.numpy()])


def budget_indices(pool: Pool, name: str, budget: LabelBudget) -> tuple[Tensor, Tensor]:
    """Return the indices in the pool of the training images (n,) and validation images (m,) of a budget."""
    train, validation = (pool.indices(split, task=name) for split in ("train", "val"))
    return train[torch.from_numpy(budget.train.rows)], validation[torch.from_numpy(budget.validation.rows)]


def kept_images(pool: Pool, name: str, budget: LabelBudget) -> dict[str, Any]:
    """Return a task's entry in `fractions.json`: the numbers of labels, and the images."""
    found: dict[str, Any] = budget.record()
    for prefix, indices in zip(("", "validation_"), budget_indices(pool, name, budget), strict=True):
        found[f"{prefix}indices"] = indices.tolist()
        found[f"{prefix}identities"] = [pool.identities[row] for row in indices.tolist()]
    return found

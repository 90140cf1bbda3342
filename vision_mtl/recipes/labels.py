"""The tasks of a run, and the training images whose labels it may use."""

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
from vision_mtl.evaluation.fractions import label_fraction

FRACTIONS = "fractions.json"


@dataclass(frozen=True)
class LabelledTasks:
    """The tasks of a run, and the training images whose labels it may use.

    `train` maps a task to indices (n,) int64 in the pool. All other labels of training images are removed from the
    pool: an image that is drawn for one task must not add to another task's share of labels.
    """

    pool: Pool
    tasks: Mapping[str, Task]
    train: Mapping[str, Tensor]
    records: Mapping[str, dict[str, Any]]  # task -> requested and real fraction, num_labelled

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
    """Return the tasks with a stratified share of their training images, and list those in `fractions.json`.

    Raises `UserError` without a task.
    """
    tasks = config.tasks
    if not tasks:
        raise UserError(f"{config.stage} needs a labelled task: give --tasks.NAME.source SOURCE.")
    train, records, kept, targets = {}, {}, {}, dict(pool.targets)
    for name in tasks:
        indices, target = pool.indices("train", task=name), pool.targets[name]
        strata = label_kind(target.kind).strata(target.values[indices.numpy()])
        subset = label_fraction(pool.draw_names(indices), strata, fraction, config.seed)
        if subset.warning:
            run.warn(f"task {name}: {subset.warning}")
        train[name] = indices[torch.from_numpy(subset.rows)]
        usable = pool.split != SPLITS.index("train")  # validation and test labels stay
        usable[train[name].numpy()] = True
        chosen = np.zeros(len(pool), bool)
        chosen[train[name].numpy()] = True
        targets[name] = target.keep(usable).in_unit_of(chosen)
        records[name] = {
            "requested": fraction,
            "fraction": subset.fraction,
            "num_labelled": subset.num_labelled,
        }
        kept[name] = {
            **records[name],
            "indices": train[name].tolist(),
            "identities": [pool.identities[row] for row in train[name].tolist()],
        }
    if run.is_main:
        atomic_write_json(run.folder / FRACTIONS, {f"{fraction:g}": kept})
    return LabelledTasks(replace(pool, targets=targets), tasks, train, records)

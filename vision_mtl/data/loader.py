"""Labelled batches of several tasks: threads augment them one step before the training needs them."""
# B images, b of them labelled for a task, C channels, H W pixels

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vision_mtl.data.ahead import Ahead
from vision_mtl.data.augment import Augmenter
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool, image_tensor
from vision_mtl.data.targets import mask_tensor
from vision_mtl.data.task_batches import TaskBatches


@dataclass(frozen=True)
class LabelledBatch:
    """A batch of images with their labels for all tasks.

    `targets` maps a task to ((b,) int64 rows of the batch, their labels as from `Target.gather`). A row has labels for
    all tasks that know it, not only for the task it was drawn for. A task without a labelled row is absent.
    """

    indices: Tensor  # (B,) int64 in the pool
    epochs: Tensor  # (B,) int64, of the task that the row was drawn for; 0 in a clean batch
    drawn_for: Tensor  # (B,) int64, the number of that task; -1 in a clean batch
    images: Tensor  # (B, C, H, W) float32 in [0, 1]
    targets: dict[str, tuple[Tensor, Tensor]]


class TaskLoader:
    """Loads the batch of a step; `at(step)` is a pure function, independent of earlier calls and of `num_workers`.

    The policy of the task that an image was drawn for augments the image and its masks of all tasks; `strong` adds the
    strong changes of consistency training. The next batch is prepared in the background, in pinned memory for a GPU
    (`pin`). `num_workers` 0: one thread per core. Exceptions of a thread, such as `UserError`, are raised by the `at`
    of its batch.
    """

    def __init__(
        self,
        pool: Pool,
        tasks: Mapping[str, Task],
        batches: TaskBatches,
        seed: int,
        num_workers: int = 0,
        pin: bool = False,
        strong: bool = False,
    ) -> None:
        channels, height, width = pool.shape
        self.pool, self.tasks, self.batches, self.seed = pool, list(tasks), batches, seed
        self._dense = [task for task in tasks if label_kind(pool.targets[task].kind).is_dense]
        shape = height, width, channels
        self._augmenters = [Augmenter(t, tasks[t].augment, shape, pool.dtype, strong) for t in batches.tasks]
        self._num_workers = num_workers or os.cpu_count() or 1
        self._workers = ThreadPoolExecutor(self._num_workers, thread_name_prefix="augment")
        self._ahead = Ahead(self._make, depth=1, num_workers=1, name="batch")
        self._pin = pin

    def at(self, step: int) -> LabelledBatch:
        """Return the batch of `step` and start the next one."""
        return self._ahead.at(step)

    def close(self) -> None:
        """Stop the threads and drop an unfinished batch."""
        self._ahead.close()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> TaskLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, step: int) -> LabelledBatch:
        indices, epochs, drawn_for = self.batches.at(step)
        pixels = self.pool.pixels(indices)
        rows = labelled_rows(self.pool, self.tasks, indices)
        masks: dict[str, np.ndarray] = {}
        own: list[list[np.ndarray]] = [[] for _ in indices]  # each row's masks
        for task in (dense for dense in self._dense if dense in rows):
            target = self.pool.targets[task]
            assert target.masks is not None, f"{task} is dense"
            masks[task] = target.masks[target.values[indices[rows[task]].numpy()]]  # (b, H, W), a copy
            for row, mask in zip(rows[task].tolist(), masks[task], strict=True):
                own[row].append(mask)

        def augment(part: int) -> None:
            for row in range(part, len(indices), self._num_workers):
                augmenter = self._augmenters[int(drawn_for[row])]
                keys = self.seed, int(epochs[row]), int(indices[row])
                pixels[row], changed = augmenter.apply(pixels[row], own[row], *keys)
                for mask, values in zip(own[row], changed, strict=True):
                    mask[:] = values

        list(self._workers.map(augment, range(self._num_workers)))  # list() raises the exceptions of the threads
        labels = {
            task: mask_tensor(masks[task]) if task in masks else self.pool.targets[task].gather(indices[found])
            for task, found in rows.items()
        }
        targets = {task: (found, labels[task]) for task, found in rows.items()}
        images = image_tensor(pixels)
        return LabelledBatch(indices, epochs, drawn_for, images.pin_memory() if self._pin else images, targets)


def labelled_rows(pool: Pool, tasks: Iterable[str], indices: Tensor) -> dict[str, Tensor]:
    """Return task -> (b,) int64 rows of `indices` (B,) with a label for it; tasks without labels are absent."""
    found = {task: torch.from_numpy(np.flatnonzero(pool.targets[task].labelled[indices.numpy()])) for task in tasks}
    return {task: rows for task, rows in found.items() if len(rows)}

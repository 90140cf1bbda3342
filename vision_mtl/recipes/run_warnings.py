"""Warnings about misleading results: test images seen in training, tasks with too few images, collapsed features."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch import Tensor

from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.data.split_files import run_splits
from vision_mtl.evaluation.features import extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.linear_probe import FEW_VALIDATION
from vision_mtl.evaluation.rank import COLLAPSED, effective_rank
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.best import ALL
from vision_mtl.training.loop import Trainer
from vision_mtl.training.options import Optim
from vision_mtl.training.step_record import Progress
from vision_mtl.training.supervised import TaskFeed
from vision_mtl.training.tracking import Tracker

SEEN = "images_seen.npy"  # content hashes of the training images of this run, its ancestors and teachers
RANK_IMAGES = 256  # validation images to measure the rank on
MIN_RANK_IMAGES = 8  # the rank of fewer has no meaning


def remember_images(run: Run, pool: Pool, indices: Tensor, *earlier: str | None) -> None:
    """Save the content hashes of the training images `indices` (n,), for the runs that start from this one.

    Those of the runs `earlier` are among them: the one to start from and teachers. None stands for no run.
    """
    if run.is_main:
        before = np.concatenate([np.zeros(0, np.uint64), *(images_seen(where) for where in earlier if where)])
        buffer = io.BytesIO()
        np.save(buffer, np.union1d(before, pool.content[indices.numpy()]), allow_pickle=False)
        atomic_write_bytes(run.folder / SEEN, buffer.getvalue())


def images_seen(where: str) -> np.ndarray:
    """Return the hashes (n,) uint64 of the images that a run, its ancestors and teachers trained on, if saved."""
    path = run_folder(where) / SEEN
    return np.load(path, allow_pickle=False) if path.is_file() else np.zeros(0, np.uint64)


def run_folder(where: str) -> Path:
    """Return the folder of the run that `where` names: itself, or the run of a checkpoint or of a folder of those."""
    path = Path(where).expanduser()
    place = path.parent if path.is_file() else path
    folders = (place,) if (place / "checkpoints").is_dir() else (place, place.parent)
    return next((folder for folder in folders if (folder / SEEN).is_file()), place)


def warn_about_seen_test_images(run: Run, pool: Pool, init_from: str | None) -> None:
    """Warn if the run that this one starts from, or a teacher of it, was trained on test images of this one."""
    seen = np.zeros(0, np.uint64) if init_from is None else images_seen(init_from)
    names = {f"task {task}": pool.indices("test", task=task) for task in pool.targets} or {"test": pool.indices("test")}
    for name, indices in names.items():
        known = int(np.isin(pool.content[indices.numpy()], seen).sum()) if len(seen) else 0
        if known:
            run.warn(
                f"{known} of {len(indices)} test images of {name} were training images of the run that this one starts "
                f"from ({init_from}), or of an earlier run or teacher of it: its scores are not held out. "
                f"{_how_to_keep(pool, name, init_from)}"
            )


def _how_to_keep(pool: Pool, name: str, init_from: str | None) -> str:
    """Return what to do so that the images that a run was trained on are no test images."""
    folder = run_folder(init_from or ".")
    same = "the same tasks, --data.split_seed and ratios"
    file = run_splits(folder)
    if file is None:
        return f"Pretrain with {same}, so that test images stay unseen."
    kept, task = shlex.quote(str(file)), name.removeprefix("task ")
    option = f"--tasks.{task}.split {kept}, or for all sources " if task in pool.targets else ""
    return f"Keep the splits of that run with {option}--data.split_file {kept}, or pretrain with {same}."


def choosing_tasks(pool: Pool, tasks: Sequence[str]) -> list[str]:
    """Return the tasks with at least `FEW_VALIDATION` validation images per class, enough to choose weights by.

    If all tasks have, `ALL` follows: they choose the weights of the whole model.
    """
    found = [t for t in tasks if len(pool.indices("val", task=t)) >= FEW_VALIDATION * _num_groups(pool, t)]
    return [*found, ALL] if len(found) == len(tasks) else found


def _num_groups(pool: Pool, task: str) -> int:
    target = pool.targets[task]
    return len(target.class_names) if label_kind(target.kind).one_class else 1


def too_few_to_choose(pool: Pool, task: str) -> str:
    """Return in words that a task has too few validation images to choose weights by, and how many are enough."""
    count, groups = len(pool.indices("val", task=task)), _num_groups(pool, task)
    what = f"{count} validation images" + (f" for {groups} classes" if groups > 1 else "")
    return f"{what}: too few to choose weights by ({FEW_VALIDATION * groups} or more are enough)"


def warn_about_small_tasks(run: Run, pool: Pool, feed: TaskFeed, tasks: Sequence[str], choosing: Sequence[str]) -> None:
    """Warn, before training, about tasks with too few images per step, or too few validation images to choose by.

    `choosing` are the tasks with enough of the latter.
    """
    for task in tasks:
        if task not in choosing:
            run.warn(
                f"task {task}: {too_few_to_choose(pool, task)}, so the last weights are kept. Raise --data.val_ratio "
                "or the label fraction for a choice."
            )
        share = feed.images_per_step * feed.share(task)
        if share < 1:
            run.warn(
                f"task {task} is starved: {share:.2f} of its labelled images per step, on average. Raise "
                "--optim.batch_size, or lower the temperature of the tasks' shares."
            )


def warn_about_starved_tasks(run: Run, epochs: dict[str, float]) -> None:
    """Warn, after training, about tasks whose labelled images were seen less than once each."""
    for task, times in epochs.items():
        if times < 1:
            run.warn(f"task {task} is starved: its labelled images were seen {times:.2f} times each, on average.")


def rank_action(trainer: Trainer, pool: Pool) -> Callable[[Progress, Tracker], None]:
    """Return an action that measures and logs the rank of the features during training."""

    def measure(progress: Progress, tracker: Tracker) -> None:
        backbone, autocast = trainer.scored_model.backbone, trainer.accelerator.autocast
        tracker.show("measuring the features' rank")
        clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=autocast)
        rank = measure_rank(tracker.run, clean, pool, f"at step {progress.step}", autocast)
        tracker.run.log({"kind": "rank", "step": progress.step, "images_seen": progress.images_seen, "rank": rank})

    return measure


def measure_rank(
    run: Run, clean: Backbone, pool: Pool, when: str, autocast: Callable[[], AbstractContextManager]
) -> float | None:
    """Return the effective rank of validation images' embeddings; warn if they have collapsed, and `when`.

    `clean` is a backbone with statistics of clean images. None for too few images.
    """
    held_out = pool.indices("val")
    indices = spread_evenly(held_out if len(held_out) >= MIN_RANK_IMAGES else pool.indices("train"), RANK_IMAGES)
    if len(indices) < MIN_RANK_IMAGES:
        return None
    rank = effective_rank(extract_features(clean, pool, indices, autocast=autocast))
    if not rank >= COLLAPSED:
        run.warn(
            f"the embeddings have collapsed {when}: {len(indices)} images use {rank:.2f} directions (RankMe). "
            "Lower --optim.learning_rate, or look at the images: are they all alike?"
        )
    return rank


def tell_time_limit(run: Run, optim: Optim, progress: Progress) -> None:
    """Warn if `optim.max_seconds` ended training before `optim.steps`: the result then depends on the machine."""
    if optim.steps and optim.max_seconds and progress.step < optim.steps:
        whole = optim.steps * optim.batch_size
        run.warn(
            f"optim.max_seconds ended training after {progress.seconds:.0f} s, at {progress.images_seen:,} of "
            f"{whole:,} images; for all of them give --optim.steps alone."
        )

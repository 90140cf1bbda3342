"""What a run is warned of so that nobody is fooled: test images seen before, tasks with too little, collapse."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch import Tensor

from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.features import extract_features, spread_evenly, with_clean_statistics
from vision_mtl.evaluation.linear_probe import FEW_VALIDATION
from vision_mtl.evaluation.rank import COLLAPSED, effective_rank
from vision_mtl.models.backbone import Backbone
from vision_mtl.training.joint import JointFeed
from vision_mtl.training.loop import Trainer
from vision_mtl.training.objective import Feed
from vision_mtl.training.step_record import Progress
from vision_mtl.training.tracking import Tracker

SEEN = "images_seen.npy"  # content hashes of the training images, of this run and of those that it started from
RANK_IMAGES = 256  # validation images that a rank is measured on
FEWEST_IMAGES = 8  # below which it says nothing


def remember_images(run: Run, pool: Pool, indices: Tensor, init_from: str | None) -> None:
    """Write down which images (n,) this run trains on, by content, for the runs that start from it."""
    if run.is_main:
        before = np.zeros(0, np.uint64) if init_from is None else images_seen(init_from)
        buffer = io.BytesIO()
        np.save(buffer, np.union1d(before, pool.content[indices.numpy()]), allow_pickle=False)
        atomic_write_bytes(run.folder / SEEN, buffer.getvalue())


def images_seen(where: str) -> np.ndarray:
    """(n,) uint64 hashes of the images that a run and its ancestors trained on; none if it did not write them down."""
    path = Path(where).expanduser()
    place = path.parent if path.is_file() else path
    for folder in (place,) if (place / "checkpoints").is_dir() else (place, place.parent):
        if (folder / SEEN).is_file():
            return np.load(folder / SEEN, allow_pickle=False)
    return np.zeros(0, np.uint64)


def warn_of_seen(run: Run, pool: Pool, init_from: str | None) -> None:
    """Say which test images the run that this one starts from was trained on."""
    seen = np.zeros(0, np.uint64) if init_from is None else images_seen(init_from)
    names = {f"task {task}": pool.indices("test", task=task) for task in pool.targets} or {"test": pool.indices("test")}
    for name, indices in names.items():
        known = int(np.isin(pool.content[indices.numpy()], seen).sum()) if len(seen) else 0
        if known:
            run.warn(
                f"{known} of {len(indices)} test images of {name} were training images of the run that this one starts "
                f"from ({init_from}): its scores are not held out. Pretrain with the same tasks, --data.split_seed and "
                "ratios, so that test images stay away."
            )


def warn_of_few(run: Run, pool: Pool, feed: Feed, tasks: Sequence[str]) -> None:
    """Before training: say which tasks have too few validation images to choose by, or too small a part of a step."""
    feed = feed.members["tasks"] if isinstance(feed, JointFeed) else feed
    for task in tasks:
        target = pool.targets[task]
        groups = len(target.class_names) if label_kind(target.kind).one_class else 1
        count = len(pool.indices("val", task=task))
        if count < FEW_VALIDATION * groups:
            what = f"{count} validation images" + (f" for {groups} classes" if groups > 1 else "")
            run.warn(f"task {task}: {what}: which weights are its best is mostly luck; raise --data.val_ratio.")
        share = feed.images_per_step * feed.share(task)
        if share < 1:
            run.warn(
                f"task {task} is starved: {share:.2f} of its labelled images in a step, on average. Raise "
                "--optim.batch_size, or lower the temperature of the tasks' shares."
            )


def warn_of_starved(run: Run, epochs: dict[str, float]) -> None:
    """After training: say which tasks' labels were not seen even once each."""
    for task, times in epochs.items():
        if times < 1:
            run.warn(f"task {task} is starved: its labelled images were seen {times:.2f} times each, on average.")


def rank_action(trainer: Trainer, pool: Pool) -> Callable[[Progress, Tracker], None]:
    """What measures the rank during training."""

    def measure(progress: Progress, tracker: Tracker) -> None:
        backbone, autocast = trainer.scored_model.backbone, trainer.accelerator.autocast
        rank = measure_rank(tracker.run, backbone, pool, progress.step, autocast)
        tracker.run.log({"kind": "rank", "step": progress.step, "rank": rank})

    return measure


def measure_rank(
    run: Run, backbone: Backbone, pool: Pool, step: int, autocast: Callable[[], AbstractContextManager]
) -> float | None:
    """The effective rank of the embeddings of validation images, with a warning if they have collapsed."""
    held_out = pool.indices("val")
    indices = spread_evenly(held_out if len(held_out) >= FEWEST_IMAGES else pool.indices("train"), RANK_IMAGES)
    if len(indices) < FEWEST_IMAGES:
        return None
    clean = with_clean_statistics(backbone, pool, pool.indices("train"), autocast=autocast)
    rank = effective_rank(extract_features(clean, pool, indices, autocast=autocast))
    if not rank >= COLLAPSED:
        run.warn(
            f"the embeddings have collapsed at step {step}: {len(indices)} images use {rank:.2f} directions (RankMe). "
            "Lower --optim.learning_rate, or look at the images: are they all alike?"
        )
    return rank

"""Count what `--stage data` tells about the images: classes by split, original sizes, copies, what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.core.text import valid_text
from vision_mtl.data.assemble import list_source
from vision_mtl.data.findings import Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Data
from vision_mtl.data.originals import describe_originals
from vision_mtl.data.pool import Pool
from vision_mtl.data.source import SPLITS, Item
from vision_mtl.data.targets import Target
from vision_mtl.recipes.run_warnings import choosing_tasks, too_few_to_choose
from vision_mtl.training.progress import DataProgress

Facts = dict[str, Any]


def data_facts(config: RunConfig, run: Run, pool: Pool) -> Facts:
    """Return the entry `data` of `result.json`: the pool's summary, and what only this stage counts.

    For each source: `exact_copies`, `original` sizes, modes and formats; and `held_out` of a source without a task. For
    each task: its `source`, and `images_by_class`, or `values` of numbers; class -> split -> images.
    """
    facts, of_tasks = pool.summary(), task_sources(config)
    given = {valid_text(name): name for name in (config.data.unlabelled or [])}
    given |= {valid_text(task.source): task.source for task in config.tasks.values()}
    with DataProgress(run.speaker) as progress:
        for name in pool.sources:
            listed = list_source(given[name], config.data, config.tasks, Findings(keep_going=True))
            row = facts["sources"][name]
            contents = pool.content[pool.member[:, pool.sources.index(name)]]
            row["exact_copies"] = len(contents) - len(np.unique(contents))
            row["original"] = describe_originals(listed.source, listed.items, name, progress)
            if name not in of_tasks.values():
                row["held_out"] = _held_out(pool, name, listed.items, config.data)
    for name, target in pool.targets.items():
        facts["tasks"][name] |= {"source": of_tasks[name], **_labels(target, pool.split)}
    return facts


def task_sources(config: RunConfig) -> dict[str, str]:
    """Return each task's source as the pool writes it."""
    return {name: valid_text(task.source) for name, task in config.tasks.items()}


def tell_few_validation_images(pool: Pool, findings: Findings) -> None:
    """Add a warning for each task with too few validation images to choose weights by."""
    choosing = choosing_tasks(pool, list(pool.targets))
    for task in pool.targets:
        if task not in choosing:
            findings.warn(f"task {task!r}: {too_few_to_choose(pool, task)}.", "Raise --data.val_ratio for a choice.")


def _labels(target: Target, split: np.ndarray) -> Facts:
    """Return the images of each class in each split, or the smallest, median and largest number."""
    if not label_kind(target.kind).has_classes:
        values = {name: target.values[target.labelled & (split == number)] for number, name in enumerate(SPLITS)}
        return {"values": {name: _spread(found) for name, found in values.items() if len(found)}}
    rows, classes = target.occurrences()
    counts = np.zeros((len(target.class_names), len(SPLITS)), np.int64)
    used = split[rows] >= 0
    np.add.at(counts, (classes[used], split[rows][used]), 1)
    pairs = zip(target.class_names, counts.tolist(), strict=True)
    return {"images_by_class": {name: dict(zip(SPLITS, row, strict=True)) for name, row in pairs}}


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"low": float(values.min()), "median": float(np.median(values)), "high": float(values.max())}


def _held_out(pool: Pool, name: str, items: Sequence[Item], data: Data) -> Mapping[str, Any]:
    """Return how many images of a source are not trained on, and by which rule."""
    counts = {split: len(pool.indices(split, source=name)) for split in SPLITS}
    held = counts["val"] + (0 if data.include_test else counts["test"])
    return {"images": held, "share": held / max(sum(counts.values()), 1), "rule": _rule(items, data)}


def _rule(items: Sequence[Item], data: Data) -> str:
    """Return in words what decides on the splits of a source's items."""
    if any(item.kept for item in items):
        return f"as listed in {data.split_file}"
    given = {item.split for item in items}
    ratios = [
        f"data.{split}_ratio {getattr(data, f'{split}_ratio')}" for split in ("val", "test") if split not in given
    ]
    own = [word for split, word in (("val", "validation"), ("test", "test")) if split in given]
    texts = [f"the source's own {' and '.join(own)} images"] if own else []
    return ", ".join([*texts, *ratios])

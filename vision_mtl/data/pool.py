"""The pool: all images of a run, with their splits, labels and clusters."""
# N images, S sources, B images of a batch, C channels, H W pixels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.text import valid_text
from vision_mtl.data.assemble import (
    Listed,
    Loaded,
    check_image_option,
    check_labels,
    list_source,
    load_source,
    open_pending,
)
from vision_mtl.data.conflicts import check_same_content
from vision_mtl.data.depth import LEVELS, widened
from vision_mtl.data.findings import Finding, Findings
from vision_mtl.data.instances import Instances, near_representatives, read_targets, unite
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Data, Task
from vision_mtl.data.source import SPLITS, movable_name
from vision_mtl.data.spellings import spelling_warnings
from vision_mtl.data.split_assignment import (
    check_tasks,
    copy_warnings,
    count_near_duplicates,
    draw_splits,
    drop_leaks,
    label_leak_warnings,
)
from vision_mtl.data.split_files import split_hash
from vision_mtl.data.splits import units
from vision_mtl.data.store import Progress, Settings
from vision_mtl.data.stream import StreamedImages
from vision_mtl.data.targets import Target
from vision_mtl.data.value_ranges import KnownRanges, described

FAILURES = 5  # unreadable images named in a warning


@dataclass(frozen=True)
class Pool:
    """The N images of a run, numbered 0 to N - 1; every array has one row per image.

    `member` tells which sources hold an image (a file in two sources is one image); `split` is 0 train, 1 val, 2 test,
    -1 left out; `cluster` is the unit of intervals (a photograph, a person, a set of duplicates, or the image itself);
    `targets[task]` are a task's labels, which may cover only some images.
    """

    blocks: list[np.ndarray | StreamedImages]  # (n, H, W, C) uint8 or uint16, one or several, together N images
    identities: list[str]
    paths: list[Path | None]
    sources: list[str]
    member: np.ndarray  # (N, S) bool
    split: np.ndarray  # (N,) int8
    cluster: np.ndarray  # (N,) int64
    targets: dict[str, Target]
    findings: list[Finding]  # most important first; without errors, except in `--stage data`
    details: dict[str, Any]
    rgb_bands: Sequence[int] | None = None  # shown as red, green and blue; None: the default
    content: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # (N,) equal for equal pictures
    # source -> identities and splits (n,) of all of its items, also those that were left out as copies
    assigned: Mapping[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        height, width, channels = self.blocks[0].shape[1:]
        return channels, height, width

    @property
    def dtype(self) -> np.dtype:
        """The type of a pixel's number: uint8, or uint16 if some image has more than 8 bits."""
        return max((block.dtype for block in self.blocks), key=lambda dtype: dtype.itemsize)

    @property
    def warnings(self) -> list[str]:
        """The texts of the findings that are warnings."""
        return [str(finding) for finding in self.findings if finding.severity == "warning"]

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The class numbers of the tasks with one class per image: (N,) int64, -1 = no label."""
        return _class_labels(self.targets)

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Each task's class names in the order of their numbers; [] for regression."""
        return {task: target.class_names for task, target in self.targets.items()}

    def indices(self, split: str, *, source: str | None = None, task: str | None = None) -> Tensor:
        """Return (n,) int64 sorted indices of the images of split `train`, `val` or `test`.

        `source` keeps only the images of one source, `task` only those with a label for the task. Raises `UserError`
        for an unknown split, source or task, with the nearest name.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        rows = self.split == SPLITS.index(split)
        if source is not None:
            if source not in self.sources:
                raise unknown("source", source, self.sources)
            rows = rows & self.member[:, self.sources.index(source)]
        if task is not None:
            if task not in self.targets:
                raise unknown("task", task, self.targets)
            rows = rows & self.targets[task].labelled
        return torch.from_numpy(np.flatnonzero(rows))

    def draw_names(self, indices: Tensor) -> list[str]:
        """Return the names (n,) that random draws use: identities that do not depend on the folder's location."""
        rows = indices.numpy()
        firsts = [self.sources[number] for number in self.member[rows].argmax(1)]
        found = zip(firsts, (self.identities[row] for row in rows.tolist()), strict=True)
        return [f"{movable_name(source)}::{identity.removeprefix(f'{source}::')}" for source, identity in found]

    @property
    def is_streamed(self) -> bool:
        """True if some images are decoded only when they are read."""
        return any(isinstance(block, StreamedImages) for block in self.blocks)

    def pixels(self, indices: Tensor, num_workers: int | None = None) -> np.ndarray:
        """Return the images `indices` (B,) as (B, H, W, C) of the pool's `dtype`, a copy.

        `num_workers` threads decode streamed images; None takes the number from the options. Raises `UserError` for a
        streamed image that cannot be decoded.
        """
        chosen = indices.numpy()
        if len(self.blocks) == 1:
            return _read(self.blocks[0], chosen, num_workers)
        edges = np.cumsum([0, *(len(block) for block in self.blocks)])
        which = np.searchsorted(edges, chosen, side="right") - 1
        pixels = np.empty((len(chosen), *self.blocks[0].shape[1:]), self.dtype)
        for number in np.unique(which):
            rows = which == number
            found = _read(self.blocks[number], chosen[rows] - edges[number], num_workers)
            pixels[rows] = found if found.dtype == pixels.dtype else widened(found)
        return pixels

    def gather(self, indices: Tensor, device: torch.device | None = None) -> Tensor:
        """Return the images `indices` (B,) as (B, C, H, W) float32 in [0, 1].

        They are on the CPU or on `device`; bytes are copied to the device and become floats there.
        """
        return image_tensor(self.pixels(indices), device)

    def failures(self) -> list[str]:
        """Return a warning, if any, about streamed images that could not be decoded and became plain grey."""
        failed = {name: why for b in self.blocks if isinstance(b, StreamedImages) for name, why in b.failed.items()}
        if not failed:
            return []
        shown = "\n".join(f"  {identity}: {reason}" for identity, reason in list(failed.items())[:FAILURES])
        return [f"{len(failed)} streamed images could not be decoded and became plain grey, for example:\n{shown}"]

    def summary(self) -> dict[str, Any]:
        """Return the entry `data` of `result.json`: images by source and split, labels by task, duplicates, bytes.

        `split_hash` changes with the splits: results with equal hashes were tested on the same images.
        """
        sources = {name: {split: len(self.indices(split, source=name)) for split in SPLITS} for name in self.sources}
        tasks = {
            task: {
                **{split: len(self.indices(split, task=task)) for split in SPLITS},
                "classes": len(target.class_names),
                "kind": target.kind,
                **target.details,
            }
            for task, target in self.targets.items()
        }
        size = [self.shape[1], self.shape[2]]
        counts = {"num_images": len(self), "image_size": size, "sources": sources, "tasks": tasks}
        counts["clusters"] = {
            name: {split: len(np.unique(self.cluster[self.indices(split, source=name)])) for split in SPLITS}
            for name in self.sources
        }
        return counts | {"split_hash": split_hash(self.assigned)} | self.details


def _read(block: np.ndarray | StreamedImages, rows: np.ndarray, num_workers: int | None) -> np.ndarray:
    if isinstance(block, StreamedImages) and num_workers is not None:
        return block.read(rows, num_workers)
    return block[rows]


def image_tensor(pixels: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """Convert (B, H, W, C) uint8 or uint16 to (B, C, H, W) float32 in [0, 1], on the CPU or on `device`."""
    stored = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
    if device is not None and device.type == "cuda" and not stored.is_cuda:
        stored = stored.pin_memory().to(device, non_blocking=True)  # uint8 is a quarter of the bytes; asynchronous
    # a division, not a product with 1/255, so that 255 becomes exactly 1
    images = stored.permute(0, 3, 1, 2).to(device, torch.float32, memory_format=torch.contiguous_format)
    return images.div_(255 if stored.dtype == torch.uint8 else LEVELS)


def build_pool(
    data: Data,
    tasks: Mapping[str, Task],
    *,
    image_size: tuple[int, int],
    channels: int = 3,
    progress: Progress | None = None,
    findings: Findings | None = None,
    run_splits: Path | None = None,
    known: KnownRanges | None = None,
) -> Pool:
    """Open all sources of `data` and `tasks`, merge their images and draw the splits.

    `run_splits` is the file of splits of the run itself, if it is resumed or loaded: its images keep them. `known` are
    the ranges of the run to start from, for deep images without a declared range. What is wrong or noteworthy is added
    to `findings`. Raises `UserError`; with `findings.keep_going` only if there is nothing to build a pool from.
    """
    findings = findings or Findings()
    names = list(dict.fromkeys([*(data.unlabelled or []), *(task.source for task in tasks.values())]))
    settings = _checked_settings(names, data, image_size, channels)
    listed = _list_sources(names, data, tasks, findings, run_splits)
    tasks = {name: task for name, task in tasks.items() if any(name in source.tasks for source in listed)}
    advice = {task: text for source in listed for task, text in check_labels(source, findings).items()}
    findings.raise_errors()

    instances = unite(_load_sources(listed, data, settings, findings, progress, known))
    targets = read_targets(tasks, instances, settings, findings, data.num_workers, progress)
    findings.raise_errors()
    exact, groups = instances.contents(), instances.groups()
    label_leak_warnings({name: tasks[name] for name in targets}, targets, instances, findings)
    spelling_warnings(targets, findings)
    items = [instances.item(number) for number in range(len(instances))]
    targets = check_same_content(data.same_content, targets, items, exact, findings)

    def near_copies() -> np.ndarray:
        root = Path(data.root).expanduser()
        return near_representatives(instances, exact, _class_labels(targets), settings, root, progress)

    near = near_copies() if data.keep_near_duplicates_together else None
    unit = units([exact, groups, *([] if near is None else [near])])
    drawn = draw_splits(data, instances, unit, targets)
    split = drop_leaks(drawn, exact, instances, findings)
    instances = _with_images(instances, split, findings)
    _near_warning([source.name for source in instances.loaded if source.is_streamed], findings)
    near = near_copies() if near is None else near
    num_near = count_near_duplicates(near, exact, groups, split, instances, findings)
    copy_warnings(data.unlabelled or [], split, targets, instances, findings)
    check_tasks(targets, split, findings, advice)
    findings.raise_errors()
    cluster, details = units([exact, groups, near]), _details(instances, exact, num_near)
    pool = _pool(instances, exact, split, cluster, targets, findings.by_importance(), details, data)
    rows = zip(instances.loaded, instances.rows, strict=True)
    return replace(pool, assigned={s.name: ([item.identity for item in s.items], drawn[row]) for s, row in rows})


def _checked_settings(names: Sequence[str], data: Data, image_size: tuple[int, int], channels: int) -> Settings:
    """Return the form of the images. Raises `UserError` without a source, and for options that do not apply."""
    if not names:
        raise UserError("no images: give --data.unlabelled SOURCE, or a task with --tasks.NAME.source SOURCE.")
    check_image_option(names, data)
    if data.rgb_bands is not None and max(data.rgb_bands) >= channels:
        raise UserError(f"data.rgb_bands must lie in 0 to {channels - 1}, the bands; found {data.rgb_bands}.")
    return Settings(image_size, channels, data.fit)


def _list_sources(
    names: Sequence[str], data: Data, tasks: Mapping[str, Task], findings: Findings, run_splits: Path | None
) -> list[Listed]:
    """Return the sources with their items, not decoded; one that cannot be listed is an error."""
    listed = []
    for name in names:
        with findings.catching():
            listed.append(list_source(name, data, tasks, findings, run_splits))
    return listed


def _load_sources(
    listed: Sequence[Listed],
    data: Data,
    settings: Settings,
    findings: Findings,
    progress: Progress | None,
    known: KnownRanges | None,
) -> list[Loaded]:
    """Return the sources with their images. Raises `UserError` if none could be loaded."""
    loaded = []
    for source in listed:
        with findings.catching():
            loaded.append(load_source(source, data, settings, findings, progress, known))
    findings.raise_errors()
    if not loaded:
        findings.raise_errors(even_if_kept=True)
    return loaded


def _details(instances: Instances, exact: np.ndarray, num_near: int) -> dict[str, Any]:
    """Return what `result.json` tells about all images; `exact` (N,) numbers the contents."""
    loaded = instances.loaded
    return {
        "exact_duplicates": int(len(instances) - len(np.unique(exact))),
        "near_duplicates": num_near,
        "unreadable": sum(len(source.unreadable) for source in loaded),
        "store_bytes": sum(source.images.nbytes for source in loaded),
        "streamed": [source.name for source in loaded if source.is_streamed],
        "value_ranges": described({s.name: s.value_range for s in loaded if s.value_range is not None}),
    }


def _pool(
    instances: Instances,
    content: np.ndarray,
    split: np.ndarray,
    cluster: np.ndarray,
    targets: dict[str, Target],
    findings: list[Finding],
    details: dict[str, Any],
    data: Data,
) -> Pool:
    loaded, first = instances.loaded, instances.first
    return Pool(
        blocks=instances.blocks(),
        identities=[valid_text(f"{loaded[s].name}::{loaded[s].items[i].identity}") for s, i in first],
        paths=[loaded[s].items[i].path for s, i in first],
        sources=[valid_text(source.name) for source in loaded],
        member=instances.members(),
        split=split,
        cluster=cluster,
        targets={task: target.in_unit_of(split == SPLITS.index("train")) for task, target in targets.items()},
        findings=findings,
        details=details,
        rgb_bands=data.rgb_bands,
        content=content,
    )


def _with_images(instances: Instances, split: np.ndarray, findings: Findings) -> Instances:
    """Return the instances with the images of deep sources, whose range is found on those in training; `split` (N,)."""
    is_train = split == SPLITS.index("train")
    pairs = zip(instances.loaded, instances.rows, strict=True)
    return replace(instances, loaded=[open_pending(source, is_train[row], findings) for source, row in pairs])


def _near_warning(streamed: Sequence[str], findings: Findings) -> None:
    if streamed:
        findings.warn(f"no search for near duplicates among streamed images ({', '.join(streamed)}).")


def _class_labels(targets: Mapping[str, Target]) -> dict[str, np.ndarray]:
    return {task: target.values for task, target in targets.items() if label_kind(target.kind).one_class}

"""The side of every instance: official ones, drawn ones, and what must leave because it would leak or teach nothing."""
# N instances

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.instances import Instances
from vision_mtl.data.label_leaks import order_warning
from vision_mtl.data.options import Data, Task
from vision_mtl.data.source import SPLITS
from vision_mtl.data.splits import DROPPED, TEST, TRAIN, UNSET, VAL, assign_sides, return_classes_to_train
from vision_mtl.data.targets import Target

SHOWN = 5  # names given in a message


def draw_sides(data: Data, instances: Instances, unit: np.ndarray, targets: Mapping[str, Target]) -> np.ndarray:
    """(N,) int8. A unit that any source puts on the test side is on it everywhere, then validation, then training.

    A side that a source gives an image stands against the ones that other sources would draw for it.
    """
    count = len(instances)
    given, free = np.full(count, UNSET, np.int8), np.full(count, UNSET, np.int8)
    held_out = np.zeros(count, bool)  # by a source, not by a draw
    for source, row, names in zip(instances.loaded, instances.rows, instances.names(), strict=True):
        official = np.array([UNSET if i.split is None else SPLITS.index(i.split) for i in source.items], np.int8)
        side = assign_sides(
            names, unit[row], official, val_ratio=data.val_ratio, test_ratio=data.test_ratio, seed=data.split_seed
        )
        np.maximum.at(given, row, np.where(official == UNSET, UNSET, side).astype(np.int8))
        np.maximum.at(free, row, np.where(official == UNSET, side, UNSET).astype(np.int8))
        held_out[row[(official == TEST) | (official == VAL)]] = True
    split = np.where(given == UNSET, free, given)
    of_unit = np.full(unit.max() + 1, UNSET, np.int8)
    np.maximum.at(of_unit, unit, split)
    split = np.where(given == UNSET, of_unit[unit], split).astype(np.int8)
    occurrences = [targets[name].occurrences() for name in sorted(targets)]
    return return_classes_to_train(split, unit, ~held_out, _smallest_names(instances), occurrences, data.split_seed)


def _smallest_names(instances: Instances) -> list[str]:
    """Of an instance that several sources name, the name that comes first in the alphabet."""
    found = [""] * len(instances)
    for row, names in zip(instances.rows, instances.names(), strict=True):
        for instance, name in zip(row, names, strict=True):
            found[instance] = min(found[instance], name) if found[instance] else name
    return found


def drop_leaks(split: np.ndarray, exact: np.ndarray, instances: Instances, warnings: list[str]) -> np.ndarray:
    """Official splits may hold one picture on two sides: it stays where it is judged, and leaves the others.

    `split` and `exact` are (N,); returns the new (N,) sides.
    """
    _, content = np.unique(exact, return_inverse=True)
    highest = np.full(content.max() + 1, TRAIN, np.int8)
    np.maximum.at(highest, content, split)
    leaks = split < highest[content]
    if leaks.any():
        shown = ", ".join(instances.item(n).identity for n in np.flatnonzero(leaks)[:SHOWN])
        warnings.append(
            f"{int(leaks.sum())} images have an exact duplicate on a side that is held out and were left out: {shown}."
        )
    return np.where(leaks, DROPPED, split).astype(np.int8)


def report_near(
    near: np.ndarray,
    exact: np.ndarray,
    groups: np.ndarray,
    split: np.ndarray,
    instances: Instances,
    warnings: list[str],
) -> int:
    """The number of near duplicates that are neither exact nor of one group; a warning if they lie on two sides.

    All arrays are (N,): representatives, contents, groups and sides.
    """
    pairs = np.flatnonzero((near != np.arange(len(near))) & (exact != exact[near]) & (groups != groups[near]))
    split_up = pairs[(split[pairs] != split[near[pairs]]) & (split[pairs] != DROPPED)]
    if len(split_up):
        shown = ", ".join(f"{instances.item(n).identity} and {instances.item(near[n]).identity}" for n in split_up[:3])
        warnings.append(
            f"{len(split_up)} near duplicates lie on two sides ({shown}); "
            "--data.keep_near_duplicates_together keeps them on one."
        )
    return len(pairs)


def report_copies(
    unlabelled: Sequence[str], split: np.ndarray, targets: Mapping[str, Target], instances: Instances
) -> list[str]:
    """Say which sources without labels hold copies, in other files, of images that tasks are judged by; `split` is
    (N,)."""
    labelled = np.zeros(len(split), bool)
    for target in targets.values():
        labelled |= target.labelled
    judged = labelled & ((split == TEST) | (split == VAL))
    files: dict[int, set[object]] = {}  # content -> the files that a task's source calls it by
    for source, row in zip(instances.loaded, instances.rows, strict=True):
        for i in np.flatnonzero(judged[row]) if source.name not in unlabelled else ():
            files.setdefault(int(source.hashes[i]), set()).add(source.items[i].path)
    found = []
    for source in (s for s in instances.loaded if s.name in unlabelled):
        pairs = zip(source.items, source.hashes.tolist(), strict=True)
        copies = [i.identity for i, h in pairs if h in files and (i.path is None or i.path not in files[h])]
        if copies:
            found.append(
                f"{len(copies)} images of {source.name} are copies of test or validation images of a task "
                f"({', '.join(copies[:SHOWN])}): they are kept out of training."
            )
    return found


def report_order(tasks: Mapping[str, Task], targets: Mapping[str, Target], instances: Instances) -> list[str]:
    """Say which tasks' labels are only the order of their files or folders."""
    numbers = {source.name: number for number, source in enumerate(instances.loaded)}
    found = []
    for name, task in tasks.items():
        number = numbers[task.source]
        target, row = targets[name], instances.rows[number]
        identities = [item.identity for item in instances.loaded[number].items]
        own = Target(target.kind, target.class_names, target.values[row], target.masks)
        found.append(order_warning(name, own, identities))
    return [warning for warning in found if warning is not None]


def check_tasks(targets: Mapping[str, Target], split: np.ndarray) -> None:
    """Raise `UserError` naming a task with nothing to learn from or to be tested on, or with classes never taught.

    `split` holds the (N,) sides.
    """
    for task, target in targets.items():
        for side in (TRAIN, TEST):
            if not (target.labelled & (split == side)).any():
                raise UserError(
                    f"task {task!r} has no labelled image for {SPLITS[side]} "
                    f"(of {int(target.labelled.sum())} labelled ones). Give it more images, "
                    "another --data.split_seed, or a split of its own."
                )
        rows, classes = target.occurrences()
        unseen = np.setdiff1d(classes[split[rows] == TEST], classes[split[rows] == TRAIN])
        if len(unseen):
            shown = ", ".join(target.class_names[k] for k in unseen[:SHOWN])
            raise UserError(
                f"task {task!r}: {len(unseen)} of {len(target.class_names)} classes are in the test images and not in "
                f"the training ones: {shown}. Give each of them a training image, or blank their labels."
            )
